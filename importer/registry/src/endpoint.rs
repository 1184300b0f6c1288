//! Where a registry is, and what a repository of another registry is called there.
//!
//! Text only; never resolves a name or opens a connection.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::RegistryError;

/// Longest repository name that registries take, in bytes.
const MAX_REPOSITORY: usize = 255;

/// A registry: scheme, host, port, and a path that everything in it is put below.
///
/// Written `host[:port][/prefix]`, with `https://` or `http://` in front. Without a scheme it is
/// plain HTTP for this machine (`localhost`, a loopback address) and HTTPS for any other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    plain_http: bool,
    host: String,
    prefix: String,
}

impl Endpoint {
    /// Host and port, as they stand in a URL.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The path below which everything lies, without slashes at its ends; often empty.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether it is spoken to without TLS.
    #[must_use]
    pub fn plain_http(&self) -> bool {
        self.plain_http
    }

    /// Whether it is on this machine.
    #[must_use]
    pub fn loopback(&self) -> bool {
        is_loopback(&self.host)
    }

    /// `http://host:port` or `https://host:port`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{}", if self.plain_http { "http" } else { "https" }, self.host)
    }

    /// Whether images named after this host belong into this registry under their own names.
    #[must_use]
    pub fn is_own(&self, source_host: &str) -> bool {
        self.prefix.is_empty() && self.host == source_host
    }

    /// URL below which the repositories of a source host lie, as `hosts.toml` wants it with
    /// `override_path`: `http://localhost:32000/v2/docker.io`.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Repository`] if no repository can have that host's name in it.
    pub fn mirror_url(&self, source_host: &str) -> Result<String, RegistryError> {
        Ok(format!("{}/v2/{}", self.url(), self.below(source_host, &host_component(source_host)?)?))
    }

    /// What `docker.io/library/app` is called here: `docker.io/library/app` below the prefix. The
    /// port of a source host follows an underscore. An image of this registry keeps its name.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Repository`] if no repository can have that name.
    pub fn repository_for(&self, source: &str) -> Result<String, RegistryError> {
        let refuse = |reason| Err(RegistryError::Repository { name: source.to_string(), reason });
        let Some((host, path)) = source.split_once('/') else {
            return refuse("it lacks the registry's host");
        };
        let name = if self.is_own(host) {
            self.below(source, path)?
        } else {
            self.below(source, &format!("{}/{path}", host_component(host)?))?
        };
        if name.len() > MAX_REPOSITORY {
            return refuse("it is longer than the 255 bytes that registries take");
        }
        Ok(name)
    }

    fn below(&self, source: &str, name: &str) -> Result<String, RegistryError> {
        if !name.split('/').all(is_component) {
            return Err(RegistryError::Repository {
                name: source.to_string(),
                reason: "repositories are named with a-z, 0-9 and single . _ - / between them",
            });
        }
        Ok(if self.prefix.is_empty() { name.to_string() } else { format!("{}/{name}", self.prefix) })
    }
}

impl FromStr for Endpoint {
    type Err = RegistryError;

    fn from_str(text: &str) -> Result<Self, RegistryError> {
        let refuse = |reason| RegistryError::Endpoint { text: text.escape_default().to_string(), reason };
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme @ ("http" | "https"), rest)) => (Some(scheme), rest),
            Some(_) => return Err(refuse("only http:// and https:// are known")),
            None => (None, text),
        };
        let (host, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_end_matches('/');
        if host.contains('@') {
            return Err(refuse("user names and passwords do not belong in an address"));
        }
        if !is_host(host) {
            return Err(refuse("host[:port][/prefix] is expected"));
        }
        if !prefix.is_empty() && !prefix.split('/').all(is_component) {
            return Err(refuse("the prefix is not the beginning of a repository's name"));
        }
        let host = host.to_ascii_lowercase();
        let plain_http = scheme.map_or_else(|| is_loopback(&host), |scheme| scheme == "http");
        Ok(Self { plain_http, host, prefix: prefix.to_string() })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.plain_http && !self.loopback() {
            write!(f, "http://")?;
        }
        write!(f, "{}", self.host)?;
        if self.prefix.is_empty() { Ok(()) } else { write!(f, "/{}", self.prefix) }
    }
}

fn host_component(host: &str) -> Result<String, RegistryError> {
    if !is_host(host) || host.starts_with('[') {
        return Err(RegistryError::Repository {
            name: host.to_string(),
            reason: "its host is not a name with an optional port",
        });
    }
    Ok(host.to_ascii_lowercase().replace(':', "_"))
}

fn split_port(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    }
}

fn is_host(host: &str) -> bool {
    let (name, port) = split_port(host);
    let good_port =
        port.is_none_or(|port| port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|n| n > 0));
    let good_name = match name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => name.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        }),
    };
    good_port && good_name
}

fn is_loopback(host: &str) -> bool {
    let name = split_port(host).0;
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

// the distribution specification: [a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*
fn is_component(part: &str) -> bool {
    let mut separator = String::from("start");
    for c in part.chars() {
        match c {
            'a'..='z' | '0'..='9' => separator.clear(),
            '.' | '_' | '-' => separator.push(c),
            _ => return false,
        }
        let good = matches!(separator.as_str(), "" | "." | "_" | "__") || separator.chars().all(|c| c == '-');
        if !good {
            return false;
        }
    }
    separator.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(text: &str) -> Endpoint {
        text.parse().expect(text)
    }

    #[test]
    fn plain_http_is_for_this_machine_or_on_request() {
        for (text, url) in [
            ("localhost:32000", "http://localhost:32000"),
            ("127.0.0.1:5000", "http://127.0.0.1:5000"),
            ("[::1]:5000", "http://[::1]:5000"),
            ("https://localhost:5000/", "https://localhost:5000"),
            ("registry.example", "https://registry.example"),
            ("http://registry.example:80/a/b/", "http://registry.example:80"),
            ("localhost.example", "https://localhost.example"),
        ] {
            assert_eq!(endpoint(text).url(), url);
        }
    }

    #[test]
    fn refuses_what_is_no_endpoint() {
        for text in [
            "",
            "ftp://a",
            "https://",
            "user:pass@host",
            "host:",
            "host:0",
            "host:99999",
            "host:+1",
            "a b",
            "host/UPPER",
            "host/../x",
            "host?x=1",
            "https://host/a//b",
            "-host",
            "host/a#b",
            "[::1",
            "::1",
        ] {
            assert!(matches!(text.parse::<Endpoint>(), Err(RegistryError::Endpoint { .. })), "{text}");
        }
    }

    #[test]
    fn source_hosts_are_part_of_the_name() {
        let plain = endpoint("localhost:32000");
        assert_eq!(plain.repository_for("docker.io/library/app").expect("name"), "docker.io/library/app");
        assert_eq!(plain.repository_for("reg.example:5000/a/b__c").expect("name"), "reg.example_5000/a/b__c");
        assert_eq!(plain.mirror_url("docker.io").expect("url"), "http://localhost:32000/v2/docker.io");
        assert_eq!(plain.repository_for("localhost:32000/a").expect("name"), "a");
        let below = endpoint("https://harbor.example/sealift");
        assert_eq!(below.repository_for("ghcr.io/acme/web").expect("name"), "sealift/ghcr.io/acme/web");
        assert_eq!(below.repository_for("harbor.example/a").expect("name"), "sealift/harbor.example/a");
        assert_eq!(below.mirror_url("ghcr.io:443").expect("url"), "https://harbor.example/v2/sealift/ghcr.io_443");
    }

    #[test]
    fn refuses_names_no_repository_can_have() {
        let plain = endpoint("localhost:32000");
        let long = format!("docker.io/{}", "a".repeat(246));
        for name in [
            "app",
            "docker.io/",
            "docker.io/App",
            "docker.io/a..b",
            "docker.io/a___b",
            "[::1]:5000/app",
            "docker.io/a/../b",
            &long,
        ] {
            assert!(matches!(plain.repository_for(name), Err(RegistryError::Repository { .. })), "{name}");
        }
    }
}
