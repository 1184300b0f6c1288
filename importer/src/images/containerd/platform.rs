//! Which of an image's platforms runs on a machine.

use sealift_format::oci::Platform;

use super::ContainerdError;
use crate::image::{Image, PlatformImage};

/// The platform that containerd unpacks for on this machine.
#[must_use]
pub fn host_platform() -> Platform {
    let (architecture, variant) = match std::env::consts::ARCH {
        "x86_64" => ("amd64", None),
        "x86" => ("386", None),
        "aarch64" => ("arm64", Some("v8")),
        "arm" => ("arm", Some("v7")),
        "powerpc64" => ("ppc64le", None),
        "loongarch64" => ("loong64", None),
        other => (other, None),
    };
    Platform {
        architecture: architecture.to_string(),
        os: std::env::consts::OS.to_string(),
        variant: variant.map(str::to_string),
    }
}

/// The image to run on this platform.
///
/// # Errors
///
/// [`ContainerdError::NoPlatform`] if the image is not carried for it.
pub(super) fn pick<'a>(image: &'a Image, platform: &Platform) -> Result<&'a PlatformImage, ContainerdError> {
    let runs = |found: &&PlatformImage| rank(platform_of(found), platform).is_some();
    let carried = || image.manifests.iter().map(|found| platform_of(found).to_string());
    image
        .manifests
        .iter()
        .filter(runs)
        // the first of equals, as containerd does it
        .rev()
        .max_by_key(|found| rank(platform_of(found), platform))
        .ok_or_else(|| ContainerdError::NoPlatform {
            image: image.reference(),
            platform: platform.clone(),
            carried: carried().collect::<Vec<_>>().join(", "),
        })
}

fn platform_of(image: &PlatformImage) -> &Platform {
    image.descriptor.platform.as_ref().unwrap_or(&image.config.platform)
}

/// How well an image for `found` runs on `machine`; `None` if it does not.
fn rank(found: &Platform, machine: &Platform) -> Option<u32> {
    if found.os != machine.os || found.architecture != machine.architecture {
        return None;
    }
    let (found, machine) = (level(found), level(machine));
    (found <= machine).then_some(found)
}

/// The number in a variant such as `v7`; what an architecture means without one.
fn level(platform: &Platform) -> u32 {
    let given = platform.variant.as_deref().unwrap_or_default();
    let number = given.strip_prefix('v').and_then(|n| n.parse().ok());
    number.unwrap_or(match platform.architecture.as_str() {
        "arm" => 7,
        "arm64" => 8,
        _ => 1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rank_of(found: &str, machine: &str) -> Option<u32> {
        let platform = |text: &str| text.parse::<Platform>().expect("a platform");
        rank(&platform(found), &platform(machine))
    }

    #[test]
    fn a_variant_runs_on_a_machine_that_can_do_as_much() {
        assert!(rank_of("linux/amd64", "linux/amd64").is_some());
        assert!(rank_of("linux/arm64", "linux/arm64/v8").is_some());
        assert!(rank_of("linux/arm/v8", "linux/arm/v7").is_none());
        assert!(rank_of("linux/arm/v7", "linux/arm/v7") > rank_of("linux/arm/v6", "linux/arm/v7"));
        assert!(rank_of("linux/amd64/v3", "linux/amd64").is_none());
        assert!(rank_of("linux/arm64", "linux/amd64").is_none());
        assert!(rank_of("windows/amd64", "linux/amd64").is_none());
    }
}
