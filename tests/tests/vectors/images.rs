//! Documents of images.

use sealift_format::{Digest, oci};

use crate::bundle::{Parts, SampleImage, content, image_index, image_manifest, sample_image};
use crate::catalogue::List;

pub(crate) fn add(list: &mut List) {
    first(list);
    manifests(list);
    configs(list);
    indexes(list);
    limits(list);
}

fn first(list: &mut List) {
    list.image("image-both-shapes", "a manifest that is an index as well", |image| {
        let text = String::from_utf8(image.manifest.clone()).expect("JSON");
        image.manifest = text.replacen("\"config\"", "\"manifests\":[],\"config\"", 1).into_bytes();
    });
    list.image("image-md5", "a layer named by an MD5 digest", |image| {
        let text = String::from_utf8(image.manifest.clone()).expect("JSON");
        image.manifest = text
            .replacen(&Digest::of(&image.layer).to_string(), "md5:d41d8cd98f00b204e9800998ecf8427e", 1)
            .into_bytes();
    });
    list.image("image-urls", "a layer that lies elsewhere", |image| {
        let text = String::from_utf8(image.manifest.clone()).expect("JSON");
        image.manifest =
            text.replacen("\"layers\":[{", "\"layers\":[{\"urls\":[\"http://203.0.113.1/\"],", 1).into_bytes();
    });
    list.image("image-media-type", "a manifest that says it is something else", |image| {
        let text = String::from_utf8(image.manifest.clone()).expect("JSON");
        image.manifest = text.replacen(oci::MEDIA_MANIFEST, oci::MEDIA_INDEX, 1).into_bytes();
    });
    list.image("image-diff-ids", "a config that counts other layers", |image| {
        let text = String::from_utf8(image.config.clone()).expect("JSON");
        image.config =
            text.replacen("\"diff_ids\":[", &format!("\"diff_ids\":[\"{}\",", Digest::of(b"")), 1).into_bytes();
        image.manifest = image_manifest(&image.config, &image.layer);
    });
    list.image("image-label", "a label that containerd would act on", |image| {
        let text = String::from_utf8(image.config.clone()).expect("JSON");
        image.config = text
            .replacen("\"config\":{", "\"config\":{\"Labels\":{\"containerd.io/restart.loguri\":\"x\"},", 1)
            .into_bytes();
        image.manifest = image_manifest(&image.config, &image.layer);
    });
}

// one piece of the image's manifest is replaced
fn manifest(list: &mut List, name: &'static str, rule: &'static str, (old, new): (&str, &str)) {
    list.image(name, rule, |image| {
        let text = String::from_utf8(image.manifest.clone()).expect("JSON");
        assert!(text.contains(old), "{old}");
        image.manifest = text.replacen(old, new, 1).into_bytes();
    });
}

// one piece of the image's config is replaced
fn config(list: &mut List, name: &'static str, rule: &'static str, (old, new): (&str, &str)) {
    list.image(name, rule, |image| {
        let text = String::from_utf8(image.config.clone()).expect("JSON");
        assert!(text.contains(old), "{old}");
        reconfigure(image, text.replacen(old, new, 1).into_bytes());
    });
}

fn reconfigure(image: &mut SampleImage, config: Vec<u8>) {
    image.manifest = image_manifest(&config, &image.layer);
    image.config = config;
}

fn manifests(list: &mut List) {
    let layers = "\"layers\":[{";
    manifest(list, "image-other-layers", "\"Layers\" beside \"layers\"", (layers, "\"Layers\":[],\"layers\":[{"));
    manifest(list, "image-other-case", "\"mediatype\" in place of \"mediaType\"", ("\"mediaType\"", "\"mediatype\""));
    manifest(list, "image-field-twice", "\"layers\" comes twice", (layers, "\"layers\":[],\"layers\":[{"));
    manifest(
        list,
        "image-unknown-field-twice",
        "an unknown name comes twice",
        (layers, "\"x\":1,\"x\":1,\"layers\":[{"),
    );
    manifest(
        list,
        "image-unknown-field-twice-by-case",
        "an unknown name comes twice, in two cases",
        (layers, "\"x\":1,\"X\":1,\"layers\":[{"),
    );
    manifest(
        list,
        "image-field-twice-by-escape",
        "\"layers\" comes twice, once with an escape",
        (layers, "\"\\u006cayers\":[],\"layers\":[{"),
    );
    manifest(
        list,
        "image-long-s",
        "\"\u{17f}chemaVersion\" beside \"schemaVersion\"",
        (layers, "\"\u{17f}chemaVersion\":1,\"layers\":[{"),
    );
    manifest(list, "image-schema-version", "schemaVersion 1", ("\"schemaVersion\":2", "\"schemaVersion\":1"));
    manifest(list, "image-schema-version-float", "schemaVersion 2.0", ("\"schemaVersion\":2", "\"schemaVersion\":2.0"));
    manifest(list, "image-schema-version-absent", "no schemaVersion", ("\"schemaVersion\":2,", ""));
    manifest(list, "image-fs-layers", "fsLayers of schema 1", (layers, "\"fsLayers\":[],\"layers\":[{"));
    manifest(list, "image-without-layers", "no layers", ("\"layers\"", "\"lagers\""));
    manifest(list, "image-null-config", "the config is null", ("\"config\":{", "\"config\":null,\"x\":{"));
    manifest(list, "image-data", "a layer is embedded", (layers, "\"layers\":[{\"data\":\"aGVsbG8=\","));
    manifest(
        list,
        "image-annotation",
        "an annotation that is a number",
        (layers, "\"layers\":[{\"annotations\":{\"a\":1},"),
    );
    manifest(
        list,
        "image-annotation-null",
        "an annotation that is null",
        (layers, "\"layers\":[{\"annotations\":{\"a\":null},"),
    );
    manifest(
        list,
        "image-descriptor-platform",
        "a platform without os",
        (layers, "\"layers\":[{\"platform\":{\"architecture\":\"amd64\"},"),
    );
    manifest(
        list,
        "image-foreign-layer",
        "a layer that may not be distributed",
        ("layer.v1.tar", "layer.nondistributable.v1.tar"),
    );
    manifest(list, "image-without-size", "a layer without a size", (",\"size\":2048", ""));
    manifest(list, "image-negative-size", "a layer of a negative size", ("\"size\":2048", "\"size\":-2048"));
    manifest(list, "image-array-for-object", "an array stands for a descriptor", (layers, "\"layers\":[[\"a\"],{"));
    list.image("image-array", "the manifest is an array of its values", |image| {
        let text = String::from_utf8(image.manifest.clone()).expect("JSON");
        image.manifest = format!("[{text}]").into_bytes();
    });
    list.image("image-trailing", "a second value follows the manifest", |image| {
        image.manifest.extend_from_slice(b"{}");
    });
    list.image("image-not-utf-8", "a byte that is not UTF-8, in a value that nobody reads", |image| {
        let at = image.manifest.len() - 1;
        image.manifest.splice(at..at, *b",\"x\":\"\xff\"");
    });
    list.image("image-byte-order-mark", "the manifest starts with a byte order mark", |image| {
        image.manifest.splice(0..0, *b"\xef\xbb\xbf");
    });
    let mut image = sample_image();
    let text = String::from_utf8(image.manifest.clone()).expect("JSON");
    image.manifest = text.replacen(oci::MEDIA_CONFIG, "application/vnd.oci.empty.v1+json", 1).into_bytes();
    list.add("accept", "sound-image-config-type", "OCI documents", "the media type of a config is not looked at", {
        Parts::of(content(&image)).file()
    });
}

fn configs(list: &mut List) {
    let label = "\"containerd.io/restart.status\":\"running\"";
    let labels = |name: &str| format!("\"config\":{{\"{name}\":{{{label}}},");
    config(
        list,
        "image-label-cri",
        "a label of containerd's CRI plugin",
        ("\"config\":{", "\"config\":{\"Labels\":{\"io.cri-containerd.image\":\"managed\"},"),
    );
    config(list, "image-labels-lower-case", "\"labels\" in place of \"Labels\"", ("\"config\":{", &labels("labels")));
    config(
        list,
        "image-labels-long-s",
        "\"Label\u{17f}\" in place of \"Labels\"",
        ("\"config\":{", &labels("Label\u{17f}")),
    );
    config(list, "image-labels-escaped-long-s", "the same, with an escape", ("\"config\":{", &labels("Label\\u017f")));
    config(
        list,
        "image-kelvin-sign",
        "\"Wor\u{212a}ingDir\" in place of \"WorkingDir\"",
        ("\"config\":{", "\"config\":{\"Wor\u{212a}ingDir\":\"/\","),
    );
    config(list, "image-other-config", "\"Config\" beside \"config\"", ("\"config\":{", "\"Config\":{},\"config\":{"));
    config(list, "image-config-in-capitals", "\"Config\" in place of \"config\"", ("\"config\":{", "\"Config\":{"));
    config(list, "image-labels-array", "labels that are an array", ("\"config\":{", "\"config\":{\"Labels\":[],"));
    config(
        list,
        "image-label-number",
        "a label that is a number",
        ("\"config\":{", "\"config\":{\"Labels\":{\"a\":1},"),
    );
    config(
        list,
        "image-runtime-array",
        "an array stands for the config's \"config\"",
        ("\"config\":{\"Cmd\":[\"/hello\"]}", "\"config\":[]"),
    );
    config(
        list,
        "image-rootfs-array",
        "an array stands for rootfs",
        ("\"rootfs\":{", "\"rootfs\":[\"layers\",[]],\"x\":{"),
    );
    config(list, "image-rootfs-type", "a rootfs of another type", ("\"type\":\"layers\"", "\"type\":\"layer\""));
    config(list, "image-rootfs-absent", "no rootfs", ("\"rootfs\"", "\"rootfz\""));
    config(list, "image-diff-id", "a diff id by another algorithm", ("\"sha256:", "\"sha512:"));
    config(list, "image-config-os-absent", "a config without os", ("\"os\":\"linux\",", ""));
    config(
        list,
        "image-config-variant",
        "a variant that is a number",
        ("\"os\":\"linux\",", "\"os\":\"linux\",\"variant\":8,"),
    );
}

fn indexes(list: &mut List) {
    let other = Digest::of(b"the manifest of another platform");
    let mut bend = |name, rule, old: &str, new: &str| {
        let mut image = sample_image();
        let text = String::from_utf8(image_index(&image.manifest, other)).expect("JSON");
        assert!(text.contains(old), "{old}");
        image.index = Some((text.replacen(old, new, 1).into_bytes(), vec![other]));
        list.add("damaged", name, "OCI documents", rule, Parts::of(content(&image)).file());
    };
    let entry = format!("[{{\"mediaType\":\"{}\"", oci::MEDIA_MANIFEST);
    bend(
        "image-index-nested",
        "an index lists an index",
        &entry,
        &entry.replacen(oci::MEDIA_MANIFEST, oci::MEDIA_INDEX, 1),
    );
    bend(
        "image-index-large-entry",
        "an index lists a manifest of 4 MiB and 1 byte",
        "\"size\":500",
        "\"size\":4194305",
    );
    bend("image-index-minus-zero", "the size of a manifest is minus zero", "\"size\":500", "\"size\":-0");
    bend(
        "image-index-both-shapes",
        "an index that is a manifest as well",
        "\"manifests\"",
        "\"layers\":[],\"manifests\"",
    );
    bend(
        "image-index-other-manifests",
        "\"Manifests\" beside \"manifests\"",
        "\"manifests\"",
        "\"Manifests\":[],\"manifests\"",
    );
    bend("image-index-empty", "an index without a manifest", "\"manifests\":[", "\"manifests\":[],\"x\":[");
    bend("image-index-absent", "an index without \"manifests\"", "\"manifests\":[", "\"x\":[");
}

fn limits(list: &mut List) {
    list.image("image-too-many-layers", "128 layers", |image| {
        let text = String::from_utf8(image.manifest.clone()).expect("JSON");
        let at = text.find("\"layers\":[").expect("layers") + 10;
        let layer = &text[at..text.len() - 2];
        let layers = vec![layer; 128].join(",");
        let diff_id = Digest::of(&image.layer).to_string();
        let config = String::from_utf8(image.config.clone()).expect("JSON");
        let ids = vec![format!("\"{diff_id}\""); 128].join(",");
        let config = config.replacen(&format!("\"{diff_id}\""), &ids, 1).into_bytes();
        let bare = String::from_utf8(image_manifest(&config, &image.layer)).expect("JSON");
        image.manifest = bare.replacen(layer, &layers, 1).into_bytes();
        image.config = config;
    });
    list.image("image-too-many-manifests", "an index of 257 manifests", |image| {
        let other = Digest::of(b"the manifest of another platform");
        let text = String::from_utf8(image_index(&image.manifest, other)).expect("JSON");
        let at = text.find(",{\"mediaType\"").expect("the second entry");
        let entry = &text[at..text.len() - 2];
        image.index = Some((text.replacen(entry, &entry.repeat(256), 1).into_bytes(), vec![other]));
    });
    list.image("image-config-too-large", "a config of 4 MiB and 1 byte", |image| large(image, (4 << 20) + 1));
    let mut image = sample_image();
    large(&mut image, 4 << 20);
    for (count, verdict, name, rule) in [
        (7, "accept", "sound-large-documents", "a config of 4 MiB, in seven images"),
        (
            8,
            "damaged",
            "image-documents-too-large",
            "a config of 4 MiB, in eight images: more than 32 MiB of documents",
        ),
    ] {
        let mut content = content(&image);
        let first = content.images[0].clone();
        content.images =
            (0..count).map(|n| sealift_format::manifest::Image { tag: Some(n.to_string()), ..first.clone() }).collect();
        list.add(verdict, name, "Limits", rule, Parts::of(content).file());
    }
}

// white space up to this size
fn large(image: &mut SampleImage, size: usize) {
    let mut config = image.config.clone();
    config.resize(size, b' ');
    reconfigure(image, config);
}
