//! What an image asks of the runtime, and JSON in the documents of images.

use sealift_format::Digest;

use crate::bundle::image_manifest;
use crate::catalogue::List;

pub(crate) fn add(list: &mut List) {
    users(list);
    volumes(list);
    ignored(list);
    read(list);
}

// something is put in front of the fields of the config's "config"
fn config(list: &mut List, verdict: &'static str, name: &'static str, rule: &'static str, field: &str) {
    list.image_verdict(verdict, name, "OCI documents", rule, |image| {
        let text = String::from_utf8(image.config.clone()).expect("JSON");
        image.config = text.replacen("\"config\":{", &format!("\"config\":{{{field},"), 1).into_bytes();
        image.manifest = image_manifest(&image.config, &image.layer);
    });
}

// something is put in front of the fields of the image's manifest
fn manifest(
    list: &mut List,
    verdict: &'static str,
    name: &'static str,
    section: &'static str,
    rule: &'static str,
    field: &str,
) {
    list.image_verdict(verdict, name, section, rule, |image| {
        let text = String::from_utf8(image.manifest.clone()).expect("JSON");
        image.manifest = text.replacen('{', &format!("{{{field},"), 1).into_bytes();
    });
}

fn users(list: &mut List) {
    for (name, rule, user) in [
        ("sound-image-user-empty", "an empty user", "\"\""),
        ("sound-image-user-null", "the user is null, which counts as absent", "null"),
        ("sound-image-user-number", "the largest user and group", "\"2147483647:2147483647\""),
        ("sound-image-user-name", "a user and a group by name", "\"_apt-2.X:www-data\""),
        ("sound-image-user-mixed", "a user by number, a group by name", "\"1001:root\""),
    ] {
        config(list, "accept", name, rule, &format!("\"User\":{user}"));
    }
    for (name, rule, user) in [
        ("image-user-too-large", "user 2^31", "\"2147483648\""),
        ("image-group-too-large", "group 2^31", "\"0:2147483648\""),
        ("image-user-eleven-digits", "a user of eleven digits", "\"00000000000\""),
        ("image-user-negative", "a negative user", "\"-1\""),
        ("image-user-plus", "a user with a sign", "\"+1\""),
        ("image-user-space", "a user with a space", "\"user with space\""),
        ("image-user-variable", "a variable that nobody has replaced", "\"$UID\""),
        ("image-user-path", "a user with a slash", "\"../root\""),
        ("image-user-line-end", "a user with a line end", "\"app\\n\""),
        ("image-user-letter", "a user with a letter that is not ASCII", "\"us\u{e9}r\""),
        ("image-user-without-group", "a colon and no group", "\"root:\""),
        ("image-group-without-user", "a group and no user", "\":0\""),
        ("image-user-two-groups", "two groups", "\"a:b:c\""),
        ("image-user-as-number", "the user is a number and not a string", "1001"),
    ] {
        config(list, "damaged", name, rule, &format!("\"User\":{user}"));
    }
}

fn volumes(list: &mut List) {
    for (name, rule, volumes) in [
        ("sound-image-volumes", "volumes, one with a slash at its end", "{\"/data\":{},\"/var/lib/a b/\":null}"),
        ("sound-image-volumes-null", "the volumes are null, which counts as absent", "null"),
        ("sound-image-volume-dots", "a component of three dots, and one that starts with a dot", "{\"/.../.a\":{}}"),
    ] {
        config(list, "accept", name, rule, &format!("\"Volumes\":{volumes}"));
    }
    for (name, rule, volumes) in [
        ("image-volume-relative", "a relative volume", "{\"data\":{}}"),
        ("image-volume-empty", "a volume without a path", "{\"\":{}}"),
        ("image-volume-root", "the root as a volume", "{\"/\":{}}"),
        ("image-volume-parent", "a volume with ..", "{\"/a/../../etc\":{}}"),
        ("image-volume-dot", "a volume with .", "{\"/a/./b\":{}}"),
        ("image-volume-empty-component", "a volume with two slashes in a row", "{\"/a//b\":{}}"),
        ("image-volume-two-slashes-at-the-end", "a volume with two slashes at its end", "{\"/a//\":{}}"),
        ("image-volume-control", "a volume with a zero byte", "{\"/a\\u0000\":{}}"),
        ("image-volume-twice", "a volume comes twice", "{\"/a\":{},\"/a\":{}}"),
        ("image-volumes-array", "the volumes are an array", "[\"/a\"]"),
    ] {
        config(list, "damaged", name, rule, &format!("\"Volumes\":{volumes}"));
    }
}

fn ignored(list: &mut List) {
    let section = "OCI documents";
    for (name, rule, value) in [
        ("sound-image-ignored-surrogate", "a lone surrogate in a value that is ignored", "[\"\\ud800\"]"),
        (
            "sound-image-ignored-number",
            "numbers of any size in a value that is ignored",
            "[1e400,-0.0E-5,123456789012345678901234567890]",
        ),
        ("sound-image-ignored-name-twice", "a name comes twice inside a value that is ignored", "{\"a\":1,\"a\":2}"),
        (
            "sound-image-ignored-nesting",
            "64 deep, the document counted",
            &format!("{}{}", "[".repeat(63), "]".repeat(63)),
        ),
    ] {
        manifest(list, "accept", name, section, rule, &format!("\"x\":{value}"));
    }
    manifest(
        list,
        "accept",
        "sound-image-manifest-annotations",
        section,
        "the annotations of a manifest are ignored, whatever they are",
        "\"annotations\":{\"a\":1,\"a\":[]},\"subject\":7,\"artifactType\":{}",
    );
    for (name, rule, value) in [
        ("image-ignored-leading-zero", "a value that is ignored and is not JSON: 01", "01"),
        ("image-ignored-control-character", "a value that is ignored and is not JSON: a tab in a string", "\"\t\""),
        ("image-ignored-escape", "a value that is ignored and is not JSON: an unknown escape", "\"\\x\""),
    ] {
        manifest(list, "damaged", name, section, rule, &format!("\"x\":{value}"));
    }
    let deep = format!("\"x\":{}{}", "[".repeat(64), "]".repeat(64));
    manifest(
        list,
        "damaged",
        "image-nesting",
        "Limits",
        "a manifest nested 65 deep, in a value that is ignored",
        &deep,
    );
    config(list, "damaged", "image-config-nesting", "a config nested 65 deep, in a value that is ignored", &{
        format!("\"x\":{}{}", "[".repeat(63), "]".repeat(63))
    });
}

fn read(list: &mut List) {
    let section = "OCI documents";
    manifest(list, "damaged", "image-name-surrogate", section, "a lone surrogate in a name", "\"\\ud800\":1");
    for (name, rule, annotations) in [
        ("image-annotation-twice", "an annotation comes twice", "{\"a\":\"b\",\"a\":\"b\"}"),
        (
            "image-annotation-twice-by-escape",
            "an annotation comes twice, once with an escape",
            "{\"a\":\"b\",\"\\u0061\":\"b\"}",
        ),
        ("image-annotation-surrogate", "a lone surrogate in an annotation", "{\"a\":\"\\ud800\"}"),
    ] {
        list.image(name, rule, |image| {
            let text = String::from_utf8(image.manifest.clone()).expect("JSON");
            let layers = format!("\"layers\":[{{\"annotations\":{annotations},");
            image.manifest = text.replacen("\"layers\":[{", &layers, 1).into_bytes();
        });
    }
    list.image_verdict(
        "accept",
        "sound-image-annotations-by-case",
        section,
        "two annotations that differ in case only: their names are data",
        |image| {
            let text = String::from_utf8(image.manifest.clone()).expect("JSON");
            let layers = "\"layers\":[{\"annotations\":{\"a\":\"\",\"A\":\"\"},";
            image.manifest = text.replacen("\"layers\":[{", layers, 1).into_bytes();
        },
    );
    config(list, "damaged", "image-label-twice", "a label comes twice", "\"Labels\":{\"a\":\"b\",\"a\":\"b\"}");
    list.image("image-diff-ids-object", "diff ids that are an object", |image| {
        let ids = format!("[\"{}\"]", Digest::of(&image.layer));
        let text = String::from_utf8(image.config.clone()).expect("JSON");
        image.config = text.replacen(&ids, "{}", 1).into_bytes();
        image.manifest = image_manifest(&image.config, &image.layer);
    });
}
