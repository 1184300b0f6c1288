use std::path::Path;

use super::*;

const HEAD: &str = "vendor: acme\nproduct: shop\nversion: 2.4.0\nseq: 7\n";

fn parse(text: &str) -> Result<Recipe, RecipeError> {
    Recipe::parse(text, Path::new("folder/sealift.yaml"))
}

/// Line, column and message of the error that a text gives after the four required fields.
fn refusal(tail: &str) -> (u64, u64, String) {
    match parse(&format!("{HEAD}{tail}")) {
        Err(RecipeError::Invalid { line, column, message, .. }) => (line, column, message),
        other => panic!("{other:?}"),
    }
}

#[test]
fn fills_in_defaults() {
    let recipe = parse(HEAD).expect("a small recipe");
    assert_eq!(recipe.channel.as_str(), "stable");
    assert_eq!(*recipe.epoch, 1);
    assert_eq!(recipe.platforms.len(), 1);
    assert_eq!(recipe.platforms[0].to_string(), "linux/amd64");
    assert!(recipe.images.is_empty() && recipe.components.is_empty());
}

#[test]
fn reads_every_field() {
    let recipe = parse(
        "# yaml-language-server: $schema=sealift.schema.json
vendor: acme
product: shop
channel: beta
version: 2.4.0-rc.1
epoch: 2
seq: 17
created_at: 1760000000
platforms: [linux/amd64, linux/arm64]
min_importer: 0.1.0
security_update: true
upgrades_from: {version: 2.0.0, epoch: 2, seq: 9}
crds: create
kube_version: v1.34.0
components:
  - name: shop
    chart: ./charts/shop
    namespace: shop
    values: [values/site.yaml]
  - {name: rules, manifests: [rules, more.yaml], namespace: shop, needs: []}
  - {name: db, chart: oci://registry.example/charts/db:1.2.3, namespace: data, plain_http: true, ca: ca.pem}
images:
  - name: ghcr.io/acme/web:2.4.0
    from: oci:layouts/web:2.4.0
  - name: app:1
    from: docker-archive:app.tar:acme/app:1
    platforms: [linux/amd64]
  - name: registry.example/tool:1
    plain_http: true
    ca: certs/ca.pem
ignore:
  - image: docker.io/library/probe:*
    reason: only used by the vendor
licences: [{name: third-party.txt, path: legal/THIRD-PARTY.txt}]
files: [{name: guide.pdf, path: doc/guide.pdf}]
notes: NOTES.md
tools: {helm: {linux/amd64: bin/helm}}
",
    )
    .expect("a full recipe");
    assert_eq!(recipe.min_importer.as_ref().expect("a version").to_string(), "0.1.0");
    assert!(recipe.security_update);
    let from = recipe.upgrades_from.as_ref().expect("a stop");
    assert_eq!((from.version.to_string().as_str(), *from.epoch, *from.seq), ("2.0.0", 2, 9));
    assert_eq!(recipe.crds, Some(Crds::Create));
    let chart = |n: usize| recipe.components[n].chart.as_ref().map(|chart| (**chart).to_string());
    assert_eq!(chart(0).as_deref(), Some("./charts/shop"));
    assert_eq!((chart(1), recipe.components[1].manifests.len()), (None, 2));
    assert_eq!(recipe.components[1].needs.as_ref().map(Vec::len), Some(0));
    assert_eq!(chart(2).as_deref(), Some("oci://registry.example/charts/db:1.2.3"));
    assert!(recipe.components[2].needs.is_none());
    let from = recipe.images[1].from.as_ref().expect("a place");
    assert_eq!(**from, "docker-archive:app.tar:acme/app:1".parse::<ImageFrom>().expect("a place"));
    assert_eq!(recipe.place(from), "folder/sealift.yaml:26:11");
    assert_eq!(recipe.resolve(Path::new("NOTES.md")), Path::new("folder/NOTES.md"));
    assert_eq!(recipe.created_at(Some("1")).expect("a time"), 1_760_000_000);
    assert_eq!(recipe.tools.helm.len(), 1);
    assert_eq!(recipe.platforms_of(&recipe.images[1]).len(), 1);
    assert_eq!(recipe.platforms_of(&recipe.images[0]).len(), 2);
}

#[test]
fn points_at_an_unknown_field_and_says_what_is_allowed() {
    let (line, column, message) = refusal("componets: []\n");
    assert_eq!((line, column), (5, 1), "{message}");
    assert!(message.contains("\"componets\" is not a field here") && message.contains("components"), "{message}");

    let (line, column, message) = refusal("images:\n  - name: a:1\n    form: oci:x\n");
    assert_eq!((line, column), (7, 5), "{message}");
    assert!(message.contains("from"), "{message}");
}

#[test]
fn points_at_a_wrong_value() {
    for (tail, place, part) in [
        ("channel: Stable\n", (5, 10), "lower-case"),
        ("channel: [a]\n", (5, 10), "a text is expected"),
        ("channel: ~\n", (5, 10), "null"),
        ("epoch: many\n", (5, 8), "number"),
        ("epoch: -1\n", (5, 8), "number"),
        ("epoch: 0\n", (5, 8), "1 to 9007199254740991"),
        ("platforms: [linux]\n", (5, 13), "linux/amd64"),
        ("platforms: []\n", (5, 12), "platforms is empty"),
        ("images:\n  - name: web:1\n    platforms: []\n", (7, 16), "platforms is empty"),
        ("min_importer: v1\n", (5, 15), "SemVer"),
        ("security_update: perhaps\n", (5, 18), "true or false"),
        ("upgrades_from: {version: 1.5, seq: 5}\n", (5, 26), "SemVer"),
        ("upgrades_from: {version: 1.5.0}\n", (5, 17), "\"seq\" is missing"),
        ("upgrades_from: {version: 1.5.0, seq: 0}\n", (5, 38), "1 to 9007199254740991"),
        ("upgrades_from: {version: 1.5.0, seq: 8}\n", (5, 38), "newer than the release itself"),
        ("upgrades_from: {version: 1.5.0, epoch: 2, seq: 1}\n", (5, 48), "newer than the release itself"),
        ("crds: replace\n", (5, 7), "create, apply, skip"),
        ("platforms: [linux/amd64, linux/amd64]\n", (5, 26), "twice"),
        ("kube_version: latest\n", (5, 15), "1.34"),
        ("components:\n  - name: A\n    chart: x\n    namespace: n\n", (6, 11), "component name"),
        ("components:\n  - name: a\n    chart: https://x/y.tgz\n    namespace: n\n", (7, 12), "oci://"),
        ("components:\n  - name: a\n    chart: oci://x.io/y\n    namespace: n\n", (7, 12), "version"),
        ("components:\n  - name: a\n    chart: x\n    namespace: a.b\n", (8, 16), "namespace"),
        ("components:\n  - name: a\n    namespace: n\n", (6, 11), "neither a chart nor manifests"),
        ("components:\n  - {name: a, chart: x, namespace: n, manifests: [y]}\n", (6, 51), "has a chart"),
        ("components:\n  - {name: a, namespace: n, manifests: [y], values: [z]}\n", (6, 54), "for charts only"),
        (
            "components:\n  - {name: a, namespace: n, chart: y, needs: [b]}\n",
            (6, 47),
            "needs b, which is not before it",
        ),
        ("images:\n  - name: Web:1\n", (6, 11), "lower case"),
        ("images:\n  - name: web\n", (6, 11), "neither tag nor digest"),
        ("images:\n  - name: web:1\n  - name: docker.io/library/web:1\n", (7, 11), "twice"),
        ("images:\n  - name: web:1\n    from: tar:x\n", (7, 11), "oci-archive:FILE"),
        ("images:\n  - name: web:1\n    from: oci:x\n    ca: c.pem\n", (8, 9), "registry only"),
        ("ignore:\n  - image: x\n    reason: ' '\n", (7, 13), "reason"),
        ("files:\n  - {name: ../x, path: y}\n", (6, 12), "not a name"),
        ("tools: {helm: {windows: x}}\n", (5, 16), "platform"),
        ("notes: ''\n", (5, 8), "path"),
        ("notes: [\n", (5, 8), "a text is expected"),
        ("platforms: linux/amd64\n", (5, 12), "a list is expected"),
        ("tools: helm\n", (5, 8), "a mapping of fields is expected"),
        ("images:\n  - name: web:1\n    plain_http: maybe\n", (7, 17), "true or false is expected"),
    ] {
        let (line, column, message) = refusal(tail);
        assert_eq!((line, column), place, "{tail}: {message}");
        assert!(message.contains(part), "{tail}: {message}");
        assert!(!message.contains('\n'), "{message}");
    }
}

#[test]
fn names_a_missing_and_a_doubled_field() {
    let (line, column, message) = refusal("images:\n  - from: oci:x\n");
    assert_eq!((line, column), (6, 5), "{message}");
    assert_eq!(message, "the field \"name\" is missing");
    let (line, column, message) = refusal("seq: 8\n");
    assert_eq!((line, column), (5, 1), "{message}");
    assert_eq!(message, "the field \"seq\" is given twice");
    let error = parse("vendor: acme\nproduct: shop\nversion: v2\nseq: 1\n").expect_err("no SemVer");
    assert!(error.to_string().starts_with("folder/sealift.yaml:3:10: \"v2\" is not a SemVer version"), "{error}");
}

#[test]
fn refuses_bombs_and_broken_text() {
    for tail in [
        format!("notes: {}", "[".repeat(64)),
        "files: [\n".to_string(),
        "---\na: b\n".to_string(),
        "files: *nowhere\n".to_string(),
        format!("files: &a [{}]\nlicences: *a\n", "{name: a, path: b}, ".repeat(40_000)),
    ] {
        let (line, _, message) = refusal(&tail);
        assert!(line > 0, "{message}");
    }
    let long = format!("{HEAD}#{}\n", "x".repeat(1 << 20));
    assert!(matches!(parse(&long), Err(RecipeError::TooLarge { .. })));
}

#[test]
fn says_which_byte_is_no_text() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("sealift.yaml");
    std::fs::write(&file, b"vendor: \xff\xfe\n").expect("written");
    let error = Recipe::read(&file).expect_err("no text");
    assert!(matches!(error, RecipeError::Encoding { offset: 8, .. }), "{error}");
}

#[test]
fn wants_a_time_from_the_recipe_or_the_environment() {
    let recipe = parse(HEAD).expect("a small recipe");
    assert_eq!(recipe.created_at(Some("1700000000")).expect("a time"), 1_700_000_000);
    assert!(matches!(recipe.created_at(None), Err(RecipeError::NoTime { .. })));
    assert!(matches!(recipe.created_at(Some("today")), Err(RecipeError::BadSourceDateEpoch { .. })));
}

#[test]
fn patterns_cover_whole_names() {
    for (pattern, name, expected) in [
        ("a/b:1", "a/b:1", true),
        ("a/b:1", "a/b:12", false),
        ("a/*:1", "a/x/y:1", true),
        ("*", "anything", true),
        ("a*b*c", "a-b-b-c", true),
        ("a*b*c", "a-c-b", false),
        ("ab*ba", "aba", false),
    ] {
        let pattern: ImagePattern = pattern.parse().expect("a pattern");
        assert_eq!(pattern.covers(name), expected, "{pattern:?} {name}");
    }
}

#[test]
fn the_committed_schema_is_current() {
    let current = include_str!("../../sealift.schema.json") == Recipe::schema();
    assert!(current, "write Recipe::schema() to sealift.schema.json");
}
