//! Names of images, read and completed as Docker does it.
//!
//! Follows the grammar and the normalisation of `distribution/reference`; digests are SHA-256 only.
//! Never asks a registry what a name stands for.

use std::fmt;
use std::str::FromStr;

use sealift_format::Digest;

const DEFAULT_REGISTRY: &str = "docker.io";
const LEGACY_REGISTRY: &str = "index.docker.io";
const MAX_REFERENCE: usize = 1024;
const MAX_REPOSITORY: usize = 255;
const MAX_TAG: usize = 128;

/// The full name of an image: where it would be pulled from, and which one it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// Host of the registry, with a port if it has one, for example `docker.io`.
    pub registry: String,
    /// Path within the registry, for example `library/app`.
    pub repository: String,
    /// The tag, as given; never completed with `latest`.
    pub tag: Option<String>,
    /// The digest, if the name is pinned to one.
    pub digest: Option<Digest>,
}

/// Why a text is not the name of an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an image name: {reason}")]
pub struct ReferenceError {
    /// The text, cut after 200 characters.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl Reference {
    /// `registry/repository`, without tag and digest.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The tag that a container runtime uses: `latest` if the name has neither tag nor digest.
    #[must_use]
    pub fn effective_tag(&self) -> Option<&str> {
        match (&self.tag, &self.digest) {
            (Some(tag), _) => Some(tag),
            (None, None) => Some("latest"),
            (None, Some(_)) => None,
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).map_err(|reason| ReferenceError { text: text.chars().take(200).collect(), reason })
    }
}

fn parse(text: &str) -> Result<Reference, &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.len() > MAX_REFERENCE {
        return Err("it is longer than 1024 bytes");
    }
    if text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Err("64 hexadecimal digits would be taken for an image id");
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => {
            let digest =
                digest.parse().map_err(|_| "what follows \"@\" is not sha256: and 64 lower-case hexadecimal digits")?;
            (rest, Some(digest))
        }
        None => (text, None),
    };
    let (registry, rest) = split_registry(rest);
    let (path, tag) = match rest.rsplit_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (rest, None),
    };
    if !is_registry(registry) {
        return Err("the registry is not a host name with an optional port");
    }
    if path.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("the repository must be lower case");
    }
    if path.len() > MAX_REPOSITORY {
        return Err("the repository is longer than 255 bytes");
    }
    if !path.split('/').all(is_component) {
        return Err("a part of the repository is not letters and digits with single separators between them");
    }
    if !tag.is_none_or(is_tag) {
        return Err("the tag is not 1 to 128 letters, digits, \"_\", \".\" and \"-\"");
    }
    let official = registry == DEFAULT_REGISTRY && !path.contains('/');
    Ok(Reference {
        registry: registry.to_string(),
        repository: if official { format!("library/{path}") } else { path.to_string() },
        tag: tag.map(ToString::to_string),
        digest,
    })
}

/// A first part without dot, colon or capital letter is a path on Docker's own registry.
fn split_registry(name: &str) -> (&str, &str) {
    let Some((first, rest)) = name.split_once('/') else {
        return (DEFAULT_REGISTRY, name);
    };
    let is_host = first.contains(['.', ':']) || first == "localhost" || first.chars().any(char::is_uppercase);
    match (is_host, first) {
        (false, _) => (DEFAULT_REGISTRY, name),
        (true, LEGACY_REGISTRY) => (DEFAULT_REGISTRY, rest),
        (true, host) => (host, rest),
    }
}

fn is_registry(text: &str) -> bool {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else {
            return false;
        };
        if address.is_empty() || !address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':') {
            return false;
        }
        match port.strip_prefix(':') {
            Some(port) => ("", Some(port)),
            None if port.is_empty() => ("", None),
            None => return false,
        }
    } else {
        match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    let word = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    (text.starts_with('[') || host.split('.').all(word))
        && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(part: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    alphanumeric(*first)
        && alphanumeric(*last)
        && bytes
            .split(|b| alphanumeric(*b))
            .all(|separator| matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|b| *b == b'-'))
}

fn is_tag(tag: &str) -> bool {
    (1..=MAX_TAG).contains(&tag.len())
        && tag.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
        && !tag.starts_with(['.', '-'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completes_names_as_docker_does() {
        for (given, full) in [
            ("app", "docker.io/library/app"),
            ("app:1.0", "docker.io/library/app:1.0"),
            ("acme/app", "docker.io/acme/app"),
            ("docker.io/app", "docker.io/library/app"),
            ("index.docker.io/app", "docker.io/library/app"),
            ("index.docker.io/acme/app:x", "docker.io/acme/app:x"),
            ("localhost/app", "localhost/app"),
            ("localhost:5000/app", "localhost:5000/app"),
            ("ghcr.io/acme/shop/web:2.4.0", "ghcr.io/acme/shop/web:2.4.0"),
            ("Host/app", "Host/app"),
            ("[::1]:5000/app", "[::1]:5000/app"),
            ("a__b/c-----d/e.f", "docker.io/a__b/c-----d/e.f"),
        ] {
            let reference: Reference = given.parse().expect(given);
            assert_eq!(reference.to_string(), full);
            assert_eq!(full.parse::<Reference>().as_ref(), Ok(&reference));
        }
    }

    #[test]
    fn keeps_tag_and_digest() {
        let digest = Digest::of(b"x");
        let reference: Reference = format!("app:1@{digest}").parse().expect("a name");
        assert_eq!(reference.tag.as_deref(), Some("1"));
        assert_eq!(reference.digest, Some(digest));
        assert_eq!(reference.to_string(), format!("docker.io/library/app:1@{digest}"));
        let untagged: Reference = "app".parse().expect("a name");
        assert_eq!(untagged.effective_tag(), Some("latest"));
    }

    #[test]
    fn refuses_what_is_no_name() {
        let hex = "a".repeat(64);
        for bad in [
            "",
            ":1",
            "App",
            "a//b",
            "a/",
            "-a",
            "a..b",
            "a___b",
            "a_.b",
            "app:",
            "app:-x",
            "app: 1",
            "a b",
            "https://example.com/a",
            "host:port/app",
            "exa_mple.com/app",
            "app@sha256:00",
            "app@md5:d41d8cd98f00b204e9800998ecf8427e",
            "app:1:2",
            &hex,
            &format!("app:{}", "t".repeat(129)),
            &format!("a/{}", "b".repeat(300)),
        ] {
            assert!(bad.parse::<Reference>().is_err(), "{bad}");
        }
    }
}
