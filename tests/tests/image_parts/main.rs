//! Images to and from registries and directories, part by part: on registries that each test starts itself.

mod image_dir;
mod mirrors;
mod registry_login;
mod registry_pull;
mod registry_push;
mod support;
