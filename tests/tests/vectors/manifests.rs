//! What a manifest may say.

use sealift_format::manifest::{Blob, Component, CrdPolicy, ImagePlatform, NamedBlob, UpgradesFrom};
use sealift_format::{Digest, Name, SortedMap, oci};

use crate::bundle::Parts;
use crate::catalogue::List;

pub(crate) fn add(list: &mut List) {
    manifests(list);
    names(list);
    images(list);
    limits(list);
}

fn manifests(list: &mut List) {
    list.body("damaged", "manifest-digest-in-capitals", "Digests", "a digest in another spelling", |t| {
        t.replacen("sha256:", "SHA256:", 1).into_bytes()
    });
    list.body("unsupported", "manifest-schema", "Manifest", "schema 2", |t| {
        t.replacen("\"schema\":1", "\"schema\":2", 1).into_bytes()
    });
    list.body("unsupported", "manifest-requires", "Manifest", "a feature that no reader of version 1 has", |t| {
        t.replacen("\"schema\":1", "\"schema\":1,\"requires\":[\"telepathy\"]", 1).into_bytes()
    });
    list.body("damaged", "manifest-version", "Manifest", "the version is not SemVer", |t| {
        t.replacen("\"version\":\"1.0.0\"", "\"version\":\"1.0\"", 1).into_bytes()
    });
    list.body("damaged", "manifest-name-with-path", "Names", "a product name with ..", |t| {
        t.replacen("\"product\":\"hello\"", "\"product\":\"a..b\"", 1).into_bytes()
    });
    list.body("damaged", "manifest-other-vendor", "Manifest", "the manifest is by another vendor than the root", |t| {
        t.replacen("\"vendor\":\"acme\"", "\"vendor\":\"acne\"", 1).into_bytes()
    });
    list.parts("damaged", "manifest-pack-twice", "Manifest", "a pack is listed twice", |p| {
        p.manifest.packs[1] = p.manifest.packs[0];
    });
    list.parts("damaged", "manifest-pack-too-large", "Limits", "a pack of 64 MiB and 1 byte", |p| {
        p.manifest.packs[0].size = (64 << 20) + 1;
    });
    list.parts(
        "damaged",
        "manifest-image-media-type",
        "Manifest",
        "an image that is neither index nor manifest",
        |p| {
            p.manifest.images[0].media_type = "application/vnd.oci.empty.v1+json".into();
        },
    );
    list.parts("damaged", "manifest-image-without-host", "Manifest", "a repository name without its host", |p| {
        p.manifest.images[0].repository = "acme/hello".into();
    });
    list.parts("damaged", "manifest-image-twice", "Manifest", "an image name comes twice", |p| {
        let image = p.manifest.images[0].clone();
        p.manifest.images.push(image);
    });
    components(list);
    list.parts("damaged", "manifest-segment-is-a-pack", "Manifest", "the segment is listed as a pack as well", |p| {
        p.manifest.packs[1] = p.manifest.segment;
    });
    list.parts("damaged", "manifest-empty-pack", "Manifest", "a pack of 0 bytes", |p| p.manifest.packs[0].size = 0);
    list.parts("damaged", "manifest-min-importer", "Manifest", "the oldest importer is not SemVer", |p| {
        p.manifest.min_importer = Some("1".into());
    });
    upgrades(list);
    list.parts("damaged", "manifest-version-too-long", "Limits", "a version of 129 bytes", |p| {
        p.manifest.version = format!("1.0.0-{}", "a".repeat(123));
    });
    list.parts("damaged", "manifest-version-too-large", "Manifest", "a version whose first number is 2^64", |p| {
        p.manifest.version = "18446744073709551616.0.0".into();
    });
    list.parts("damaged", "manifest-file-twice", "Manifest", "a file's name comes twice", |p| {
        let file = p.manifest.files[0].clone();
        p.manifest.files.push(file);
    });
    list.parts("damaged", "manifest-licence-order", "Manifest", "the licences are in descending order of name", |p| {
        for name in ["b", "a"] {
            let name = Name::new(name).expect("a good name");
            p.manifest.licences.push(NamedBlob { name, ..p.manifest.files[0].clone() });
        }
    });
    for (name, section, rule, tool, platform) in [
        ("manifest-tool-name", "Names", "a tool's name with a capital letter", "Tool", "linux/amd64"),
        ("manifest-tool-platform", "Manifest", "a tool for a platform of one part", "tool", "linux"),
    ] {
        list.parts("damaged", name, section, rule, |p| {
            let notes = p.manifest.notes.expect("the sample has notes");
            let platforms = SortedMap([(platform.to_string(), notes)].into());
            p.manifest.tools = SortedMap([(tool.to_string(), platforms)].into());
        });
    }
}

fn upgrades(list: &mut List) {
    let from = |version: &str, epoch, seq| Some(UpgradesFrom { version: version.into(), epoch, seq });
    for (verdict, name, rule, upgrades_from) in [
        ("accept", "sound-upgrades-from", "a stop that is older, by its epoch", from("9.0.0", 0, 8)),
        ("accept", "sound-upgrades-from-itself", "a stop that is the bundle itself", from("1.0.0", 1, 7)),
        ("damaged", "manifest-upgrades-from-seq", "a stop that is newer by its seq", from("0.9.0", 1, 8)),
        ("damaged", "manifest-upgrades-from-epoch", "a stop that is newer by its epoch", from("0.9.0", 2, 1)),
        ("damaged", "manifest-upgrades-from-out-of-range", "a stop's seq is 2^53", from("0.9.0", 0, 1 << 53)),
        ("damaged", "manifest-upgrades-from-version", "a stop's version is not SemVer", from("1", 1, 6)),
    ] {
        list.parts(verdict, name, "Manifest", rule, |p| p.manifest.upgrades_from = upgrades_from);
    }
    let stop = |text: String, stop: &str| {
        let at = "\"created_at\":1700000000,";
        text.replacen(at, &format!("{at}\"upgrades_from\":{stop},"), 1).into_bytes()
    };
    list.body("damaged", "manifest-upgrades-from-without-seq", "Manifest", "a stop without its seq", |t| {
        stop(t, "{\"version\":\"0.9.0\",\"epoch\":1}")
    });
    list.body("damaged", "manifest-upgrades-from-unknown-field", "JSON", "a stop has an unknown field", |t| {
        stop(t, "{\"version\":\"0.9.0\",\"epoch\":1,\"seq\":6,\"to\":7}")
    });
    for (name, rule, policy) in [
        ("sound-crds-create", "CRDs are made only", CrdPolicy::Create),
        ("sound-crds-apply", "CRDs are applied, and the manifest says so", CrdPolicy::Apply),
        ("sound-crds-skip", "CRDs are left alone", CrdPolicy::Skip),
    ] {
        list.parts("accept", name, "Manifest", rule, |p| p.manifest.crds = Some(policy));
    }
    list.body("damaged", "manifest-crds", "Manifest", "a policy for CRDs that there is not", |t| {
        t.replacen("\"created_at\":1700000000,", "\"created_at\":1700000000,\"crds\":\"replace\",", 1).into_bytes()
    });
}

fn names(list: &mut List) {
    list.parts("damaged", "manifest-tool-without-platform", "Manifest", "a tool for no platform", |p| {
        p.manifest.tools = SortedMap([("tool".to_string(), SortedMap::default())].into());
    });
    for (name, rule, product) in [
        ("manifest-name-empty", "an empty name", String::new()),
        ("manifest-name-too-long", "a name of 64 bytes", "a".repeat(64)),
        ("manifest-name-dash-at-the-end", "a name that ends with -", "hello-".into()),
        ("manifest-name-in-capitals", "a name with a capital letter", "Hello".into()),
        ("manifest-name-slash", "a name with a slash", "a/b".into()),
    ] {
        list.body("damaged", name, "Names", rule, |t| {
            t.replacen("\"product\":\"hello\"", &format!("\"product\":\"{product}\""), 1).into_bytes()
        });
    }
}

fn images(list: &mut List) {
    for (name, rule, repository) in [
        ("manifest-repository-dot", "a host that is a dot", "./hello"),
        ("manifest-repository-two-dots", "a host with an empty label", "a..b/hello"),
        ("manifest-repository-dash", "a host that starts with a dash", "-a.example/hello"),
        ("manifest-repository-port", "a port of six digits", "example.com:123456/hello"),
        ("manifest-repository-no-port", "a colon without a port", "example.com:/hello"),
        ("manifest-repository-capitals", "a path with a capital letter", "example.com/Hello"),
        ("manifest-repository-no-path", "no path", "example.com/"),
        ("manifest-repository-empty-part", "an empty component of the path", "example.com/a//b"),
        ("manifest-repository-parent", "a component that is two dots", "example.com/../b"),
        ("manifest-repository-three-underscores", "three underscores between two words", "example.com/a___b"),
    ] {
        list.parts("damaged", name, "Manifest", rule, |p| p.manifest.images[0].repository = repository.into());
    }
    list.parts("damaged", "manifest-repository-too-long", "Limits", "a repository name of 256 bytes", |p| {
        p.manifest.images[0].repository = format!("example.com/{}", "a".repeat(244));
    });
    for (name, section, rule, tag) in [
        ("manifest-tag", "Manifest", "a tag that starts with a dot", ".a".to_string()),
        ("manifest-tag-empty", "Manifest", "an empty tag", String::new()),
        ("manifest-tag-slash", "Manifest", "a tag with a slash", "a/b".into()),
        ("manifest-tag-too-long", "Limits", "a tag of 129 bytes", "a".repeat(129)),
    ] {
        list.parts("damaged", name, section, rule, |p| p.manifest.images[0].tag = Some(tag));
    }
    for (name, rule, platform) in [
        ("manifest-platform-one-part", "a platform of one part", "linux"),
        ("manifest-platform-four-parts", "a platform of four parts", "linux/arm/v7/x"),
        ("manifest-platform-empty-part", "a platform with an empty part", "linux/amd64/"),
        ("manifest-platform-capitals", "a platform with a capital letter", "Linux/amd64"),
    ] {
        list.parts("damaged", name, "Manifest", rule, |p| p.manifest.images[0].platforms[0].platform = platform.into());
    }
    list.parts("damaged", "manifest-image-without-platform", "Manifest", "an image without a platform", |p| {
        p.manifest.images[0].platforms.clear();
    });
    list.parts("damaged", "manifest-single-with-two-platforms", "Manifest", "one manifest for two platforms", |p| {
        let first = p.manifest.images[0].platforms[0].clone();
        p.manifest.images[0].platforms.push(ImagePlatform { platform: "linux/arm64".into(), ..first });
    });
    list.parts(
        "damaged",
        "manifest-single-is-another",
        "Manifest",
        "the platform of one manifest has another digest",
        |p| p.manifest.images[0].platforms[0].manifest = Digest::of(b"other"),
    );
    list.parts(
        "damaged",
        "manifest-single-with-omitted",
        "Manifest",
        "one manifest, and another one is left out",
        |p| p.manifest.images[0].omitted = vec![Digest::of(b"other")],
    );
    list.parts("damaged", "manifest-omitted-order", "Manifest", "what is left out is in descending order", |p| {
        p.manifest.images[0].media_type = oci::MEDIA_INDEX.into();
        p.manifest.images[0].omitted = [2, 1].map(|n| Digest::from_bytes([n; 32])).to_vec();
    });
    list.parts(
        "damaged",
        "manifest-lean-not-required",
        "Blobs",
        "a platform carried lean, which is not required",
        lean,
    );
}

fn lean(parts: &mut Parts) {
    let layer = Digest::of(&crate::bundle::sample_image().layer);
    parts.manifest.images[0].platforms[0].lean = SortedMap([(layer.to_string(), layer)].into());
}

fn limits(list: &mut List) {
    list.parts("damaged", "manifest-too-many-packs", "Limits", "4,097 packs", |p| {
        let pack = |n: u16| Blob {
            digest: Digest::from_bytes([n.to_le_bytes(); 16].concat().try_into().expect("32")),
            size: 1,
        };
        p.manifest.packs = (0..4097).map(pack).collect();
    });
    list.parts("damaged", "manifest-too-many-images", "Limits", "1,025 images", |p| {
        let image = p.manifest.images.remove(0);
        p.manifest.images =
            (0..1025).map(|n| sealift_format::manifest::Image { tag: Some(n.to_string()), ..image.clone() }).collect();
    });
    list.parts("damaged", "manifest-image-too-large", "Limits", "an image document of 4 MiB and 1 byte", |p| {
        p.manifest.images[0].size = (4 << 20) + 1;
    });
    list.parts("damaged", "manifest-index-too-large", "Limits", "an index of 8 MiB and 1 byte", |p| {
        p.manifest.index.size = (8 << 20) + 1;
    });
    list.parts("damaged", "manifest-index-raw-too-large", "Limits", "a decoded index of 16 MiB and 1 byte", |p| {
        p.manifest.index.raw_size = (16 << 20) + 1;
    });
}

fn components(list: &mut List) {
    let named = |text: &str| Name::new(text).expect("a good name");
    let file = |p: &Component, name: &str| {
        let archive = p.chart.as_ref().expect("a chart").archive;
        NamedBlob { name: Name::new(name).expect("a good name"), digest: archive.digest, size: archive.size }
    };
    let second = |all: &[Component]| Component { name: named("later"), needs: vec![named("hello")], ..all[0].clone() };
    list.parts("accept", "manifest-component-needs", "Manifest", "a component needs one before it", |p| {
        let second = second(&p.manifest.components);
        p.manifest.components.push(second);
    });
    list.parts("accept", "manifest-component-of-manifests", "Manifest", "a component of plain manifests", |p| {
        let one = &mut p.manifest.components[0];
        one.manifests = vec![file(one, "a.yaml"), file(one, "b.yaml")];
        one.chart = None;
    });
    damaged(list, "manifest-component-twice", "Manifest", "a component comes twice", &|all| {
        all.push(all[0].clone());
    });
    damaged(list, "manifest-component-needs-later", "Manifest", "a component needs one after it", &|all| {
        all.insert(0, second(all));
    });
    damaged(list, "manifest-component-needs-itself", "Manifest", "a component needs itself", &|all| {
        all[0].needs = vec![named("hello")];
    });
    damaged(list, "manifest-component-needs-order", "Manifest", "the needs of a component are not ascending", &|all| {
        all.push(second(all));
        all.push(Component { name: named("last"), needs: vec![named("later"), named("hello")], ..all[0].clone() });
    });
    damaged(list, "manifest-component-of-both", "Manifest", "a component has a chart and manifests", &|all| {
        all[0].manifests = vec![file(&all[0], "a.yaml")];
    });
    damaged(
        list,
        "manifest-component-of-nothing",
        "Manifest",
        "a component has neither a chart nor manifests",
        &|all| {
            all[0].chart = None;
        },
    );
    damaged(
        list,
        "manifest-component-file-order",
        "Manifest",
        "the manifests of a component are not ascending",
        &|all| {
            all[0].manifests = vec![file(&all[0], "b.yaml"), file(&all[0], "a.yaml")];
            all[0].chart = None;
        },
    );
    damaged(list, "manifest-chart-version", "Manifest", "a chart's version is not SemVer", &|all| {
        all[0].chart.as_mut().expect("a chart").version = "v1.0.0".into();
    });
    damaged(list, "manifest-chart-name", "Names", "a chart's name has a capital letter", &|all| {
        all[0].chart.as_mut().expect("a chart").name = "Hello".into();
    });
    damaged(list, "manifest-component-too-long", "Limits", "a component's name of 54 bytes", &|all| {
        all[0].name = named(&"a".repeat(54));
    });
}

fn damaged(
    list: &mut List,
    name: &'static str,
    section: &'static str,
    rule: &'static str,
    bend: &dyn Fn(&mut Vec<Component>),
) {
    list.parts("damaged", name, section, rule, |p| bend(&mut p.manifest.components));
}
