//! Compares the images that components name with those in the bundle.

use std::collections::BTreeSet;
use std::fmt;

use sealift_format::Digest;

use super::{NamedImage, Rendered};
use crate::collect::CollectedImage;
use crate::recipe::IgnoreEntry;
use crate::source::Reference;

/// Something about an image that a component names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The component that names it.
    pub component: String,
    /// The image and where it is named.
    pub named: NamedImage,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with an image that a component names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// The bundle does not carry it.
    NotInBundle,
    /// The text is not an image name.
    NotAName(&'static str),
    /// It is pinned to another digest than the bundle carries under its name.
    OtherDigest {
        /// The digest that is named.
        pinned: Digest,
        /// The digests that the bundle has for the repository.
        carried: Vec<Digest>,
    },
    /// `imagePullPolicy: Always` asks a registry at every start.
    PullsAlways,
    /// The tag `latest` without a pull policy means `Always`.
    Latest,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotInBundle => f.write_str("is not in the bundle"),
            Self::NotAName(reason) => write!(f, "is not an image name: {reason}"),
            Self::OtherDigest { carried, .. } => {
                let carried: Vec<String> = carried.iter().map(ToString::to_string).collect();
                write!(f, "is pinned to a digest that the bundle does not carry (it has {})", carried.join(", "))
            }
            Self::PullsAlways => f.write_str("has imagePullPolicy Always, which asks a registry at every start"),
            Self::Latest => f.write_str(
                "has the tag latest and no pull policy, which Kubernetes takes for Always: a registry would be asked",
            ),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { component, named, problem } = self;
        write!(f, "{} {problem} ({} of {component}, {})", named.image, named.template, named.object)
    }
}

/// Images that components name and that would not run from the bundle alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} of the images that the components name would not run from the bundle alone:{}", findings.len(), lines(findings))]
pub struct MissingImages {
    /// Each of them, with the template that asks for it.
    pub findings: Vec<Finding>,
}

fn lines(findings: &[Finding]) -> String {
    findings.iter().map(|finding| format!("\n  {finding}")).collect()
}

/// The result of a comparison that found nothing missing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checked {
    /// Findings that the recipe ignores, with its reasons.
    pub ignored: Vec<(Finding, String)>,
    /// Patterns of the recipe that ignored nothing.
    pub unused_ignores: Vec<String>,
    /// Images in the bundle that no component names: operators may ask for them, or nobody.
    pub unnamed: Vec<Reference>,
}

/// Compares what the components name with what was collected.
///
/// Names are compared in full, tags and digests exactly; a name with a digest needs that digest in
/// the bundle, whatever its tag.
///
/// # Errors
///
/// [`MissingImages`] with every finding that the recipe does not ignore.
pub fn check_images(
    rendered: &[Rendered],
    images: &[CollectedImage],
    ignore: &[IgnoreEntry],
) -> Result<Checked, MissingImages> {
    let mut checked = Checked::default();
    let mut findings = Vec::new();
    let mut used = BTreeSet::new();
    let mut named_images = BTreeSet::new();
    for rendered in rendered {
        for named in &rendered.images {
            for problem in problems(named, images, &mut named_images) {
                let finding = Finding { component: rendered.component.clone(), named: named.clone(), problem };
                match ignore.iter().enumerate().find(|(_, entry)| ignores(entry, &named.image)) {
                    Some((number, entry)) => {
                        used.insert(number);
                        checked.ignored.push((finding, entry.reason.to_string()));
                    }
                    None if findings.contains(&finding) => {}
                    None => findings.push(finding),
                }
            }
        }
    }
    if !findings.is_empty() {
        return Err(MissingImages { findings });
    }
    let unused = ignore.iter().enumerate().filter(|(number, _)| !used.contains(number));
    checked.unused_ignores = unused.map(|(_, entry)| entry.image.to_string()).collect();
    let unnamed = images.iter().map(|image| &image.reference).filter(|name| !named_images.contains(*name));
    checked.unnamed = unnamed.cloned().collect();
    Ok(checked)
}

fn problems<'a>(named: &NamedImage, images: &'a [CollectedImage], seen: &mut BTreeSet<&'a Reference>) -> Vec<Problem> {
    let reference: Reference = match named.image.trim().parse() {
        Ok(reference) => reference,
        Err(error) => {
            let error: crate::source::ReferenceError = error;
            return vec![Problem::NotAName(error.reason)];
        }
    };
    let mut problems = Vec::new();
    let same_repository: Vec<_> = images.iter().filter(|image| image.reference.name() == reference.name()).collect();
    let matches = |image: &&&CollectedImage| match reference.digest {
        Some(digest) => image.top.digest == digest,
        None => image.reference.tag.is_some() && image.reference.tag.as_deref() == reference.effective_tag(),
    };
    match (same_repository.iter().find(matches), reference.digest) {
        (Some(image), _) => {
            seen.insert(&image.reference);
        }
        (None, Some(pinned)) if !same_repository.is_empty() => {
            let carried = same_repository.iter().map(|image| image.top.digest).collect();
            problems.push(Problem::OtherDigest { pinned, carried });
        }
        (None, _) => problems.push(Problem::NotInBundle),
    }
    match named.pull_policy.as_deref() {
        Some("Always") => problems.push(Problem::PullsAlways),
        Some("Never" | "IfNotPresent") => {}
        _ if reference.effective_tag() == Some("latest") => problems.push(Problem::Latest),
        _ => {}
    }
    problems
}

fn ignores(entry: &IgnoreEntry, image: &str) -> bool {
    let full = image.trim().parse::<Reference>().map(|reference| reference.to_string());
    entry.image.covers(image.trim()) || full.is_ok_and(|full| entry.image.covers(&full))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use sealift_format::oci::{Descriptor, MEDIA_MANIFEST};

    use super::*;
    use crate::recipe::Recipe;

    fn carried(name: &str) -> CollectedImage {
        let reference: Reference = name.parse().expect("an image name");
        let digest = reference.digest.unwrap_or_else(|| Digest::of(reference.to_string().as_bytes()));
        CollectedImage {
            requested: reference.clone(),
            top: Descriptor {
                media_type: MEDIA_MANIFEST.to_string(),
                digest,
                size: 1,
                annotations: Default::default(),
                platform: None,
            },
            reference,
            platforms: Vec::new(),
            omitted: Vec::new(),
            resolved_from: "oci:x".to_string(),
            made_digest: false,
        }
    }

    fn rendered(image: &str, policy: Option<&str>) -> Vec<Rendered> {
        vec![Rendered {
            component: "shop".to_string(),
            images: vec![NamedImage {
                image: image.to_string(),
                pull_policy: policy.map(ToString::to_string),
                template: "shop/templates/web.yaml".to_string(),
                object: "Deployment/web".to_string(),
            }],
        }]
    }

    fn problem(image: &str, policy: Option<&str>, bundle: &[&str]) -> Option<Problem> {
        let images: Vec<_> = bundle.iter().map(|name| carried(name)).collect();
        match check_images(&rendered(image, policy), &images, &[]) {
            Ok(_) => None,
            Err(missing) => Some(missing.findings[0].problem.clone()),
        }
    }

    #[test]
    fn compares_full_names() {
        assert_eq!(problem("web:1", None, &["docker.io/library/web:1"]), None);
        assert_eq!(problem("docker.io/web:1", None, &["web:1"]), None);
        assert_eq!(problem("web:2", None, &["web:1"]), Some(Problem::NotInBundle));
        assert_eq!(problem("acme/web:1", None, &["web:1"]), Some(Problem::NotInBundle));
        assert!(matches!(problem("Not An Image", None, &[]), Some(Problem::NotAName(_))));
    }

    #[test]
    fn a_pinned_digest_must_be_the_one_carried() {
        let (one, other) = (Digest::of(b"1"), Digest::of(b"2"));
        let bundle = format!("web:1@{one}");
        assert_eq!(problem(&format!("web@{one}"), None, &[&bundle]), None);
        assert_eq!(problem(&format!("web:9@{one}"), None, &[&bundle]), None);
        let found = problem(&format!("web:1@{other}"), None, &[&bundle]);
        assert_eq!(found, Some(Problem::OtherDigest { pinned: other, carried: vec![one] }));
        assert_eq!(problem(&format!("app@{one}"), None, &[&bundle]), Some(Problem::NotInBundle));
    }

    #[test]
    fn what_would_ask_a_registry_is_found() {
        assert_eq!(problem("web:1", Some("Always"), &["web:1"]), Some(Problem::PullsAlways));
        assert_eq!(problem("web:1", Some("IfNotPresent"), &["web:1"]), None);
        assert_eq!(problem("web:latest", None, &["web:latest"]), Some(Problem::Latest));
        assert_eq!(problem("web", None, &["web:latest"]), Some(Problem::Latest));
        assert_eq!(problem("web", Some("IfNotPresent"), &["web:latest"]), None);
    }

    #[test]
    fn ignores_with_a_reason_and_tells_of_it() {
        let recipe = "vendor: a\nproduct: b\nversion: 1.0.0\nseq: 1\nignore:\n  - {image: 'docker.io/library/web:*', reason: for tests}\n  - {image: other, reason: none}\n";
        let recipe = Recipe::parse(recipe, Path::new("r.yaml")).expect("a recipe");
        let images = [carried("app:1")];
        let checked = check_images(&rendered("web:2", None), &images, &recipe.ignore).expect("ignored");
        assert_eq!(checked.ignored[0].1, "for tests");
        assert_eq!(checked.unused_ignores, ["other"]);
        assert_eq!(checked.unnamed, [images[0].reference.clone()]);
    }

    #[test]
    fn the_error_lists_image_and_template() {
        let missing = check_images(&rendered("web:2", Some("Always")), &[], &[]).expect_err("missing");
        assert_eq!(
            missing.to_string(),
            "2 of the images that the components name would not run from the bundle alone:\n  \
             web:2 is not in the bundle (shop/templates/web.yaml of shop, Deployment/web)\n  \
             web:2 has imagePullPolicy Always, which asks a registry at every start (shop/templates/web.yaml of shop, Deployment/web)"
        );
    }
}
