//! What an image asks of the container runtime: the user it runs as, and its volumes (SPEC.md, "OCI documents").
//!
//! Only forms that every runtime takes for the same thing pass. Whether the user exists is not looked at.

/// Whether this is a user that an image may ask for: empty, or a user and then maybe `:` and a group.
///
/// Each is a number below 2^31 or a name as POSIX has it: larger numbers have become root (CVE-2024-40635).
pub(crate) fn is_user(text: &str) -> bool {
    text.is_empty() || text.splitn(2, ':').all(is_id)
}

fn is_id(text: &str) -> bool {
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return text.len() <= 10 && text.parse::<u64>().is_ok_and(|id| id < 1 << 31);
    }
    !text.starts_with('-') && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// Whether this is a path that an image may have as a volume: absolute, without empty components, `.` and `..`.
///
/// One `/` at its end is allowed; control characters are not.
pub(crate) fn is_volume(path: &str) -> bool {
    let inner = path.strip_prefix('/').map(|rest| rest.strip_suffix('/').unwrap_or(rest));
    let clean = |part: &str| !matches!(part, "" | "." | "..") && !part.bytes().any(|b| b.is_ascii_control());
    inner.is_some_and(|inner| inner.split('/').all(clean))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_users_of_real_images() {
        for user in [
            "",
            "0",
            "1001",
            "1001:0",
            "65532:65532",
            "2147483647",
            "nginx",
            "postgres:postgres",
            "www-data",
            "_apt",
            "nobody:nogroup",
            "nonroot",
            "65534:nogroup",
            "ContainerUser",
            "2fa",
            "app.user",
        ] {
            assert!(is_user(user), "{user:?}");
        }
    }

    #[test]
    fn refuses_a_user_that_runtimes_may_read_in_two_ways() {
        for user in [
            "2147483648",
            "4294967296",
            "18446744073709551616",
            "00000000000",
            "0:2147483648",
            "-1",
            "+1",
            "1:-1",
            "1 ",
            "user with space",
            "$UID",
            "root:",
            ":0",
            ":",
            "a:b:c",
            "../root",
            "a/b",
            "a\nb",
            "a\0",
            "us\u{e9}r",
            "0x0 ",
        ] {
            assert!(!is_user(user), "{user:?}");
        }
    }

    #[test]
    fn takes_the_volumes_of_real_images() {
        for path in ["/data", "/var/lib/postgresql/data", "/data/", "/a b", "/...", "/.cache", "/\u{e9}"] {
            assert!(is_volume(path), "{path:?}");
        }
    }

    #[test]
    fn refuses_a_volume_that_may_lead_elsewhere() {
        for path in
            ["", "/", "//", "data", "./data", "/a/../b", "/..", "/a/.", "/a//b", "/a//", "//a", "/a\0", "/a\n", "C:\\"]
        {
            assert!(!is_volume(path), "{path:?}");
        }
    }
}
