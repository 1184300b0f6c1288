//! The one spelling of a signed document, and documents of later versions.

use crate::catalogue::List;

pub(crate) fn add(list: &mut List) {
    json(list);
    spellings(list);
    future(list);
    looks(list);
}

// one piece of the manifest's text is replaced
fn swap(
    list: &mut List,
    verdict: &'static str,
    name: &'static str,
    section: &'static str,
    rule: &'static str,
    (old, new): (&str, &str),
) {
    list.body(verdict, name, section, rule, |text| {
        assert!(text.contains(old), "{old}");
        text.replacen(old, new, 1).into_bytes()
    });
}

fn json(list: &mut List) {
    list.body("damaged", "manifest-not-json", "JSON", "it is not JSON", |_| b"schema: 1".to_vec());
    list.body("damaged", "manifest-trailing", "JSON", "bytes follow the JSON value", |t| (t + "{}").into_bytes());
    list.body("damaged", "manifest-byte-order-mark", "JSON", "it starts with a byte order mark", |t| {
        format!("\u{feff}{t}").into_bytes()
    });
    list.body("damaged", "manifest-unknown-field", "JSON", "a field that is not known", |t| {
        t.replacen("{\"schema\"", "{\"extra\":1,\"schema\"", 1).into_bytes()
    });
    list.body("damaged", "manifest-field-twice", "JSON", "a field comes twice", |t| {
        t.replacen("{\"schema\":1", "{\"schema\":1,\"schema\":1", 1).into_bytes()
    });
    list.body("damaged", "manifest-float", "JSON", "a number is not an integer", |t| {
        t.replacen("\"seq\":7", "\"seq\":7.0", 1).into_bytes()
    });
    list.body("damaged", "manifest-large-integer", "JSON", "a sequence number of 2^53", |t| {
        t.replacen("\"seq\":7", "\"seq\":9007199254740992", 1).into_bytes()
    });
    list.body("damaged", "manifest-not-utf-8", "JSON", "a text with a byte that is not UTF-8", |t| {
        let at = t.find("oci:hello").expect("the source");
        let mut bytes = t.into_bytes();
        bytes[at] = 0xff;
        bytes
    });
    swap(list, "damaged", "manifest-lone-surrogate", "JSON", "an escaped lone surrogate", ("oci:hello", "\\ud800"));
    swap(
        list,
        "damaged",
        "manifest-integer-with-exponent",
        "JSON",
        "a number with an exponent",
        ("\"seq\":7", "\"seq\":7e0"),
    );
    swap(list, "damaged", "manifest-negative", "JSON", "a negative sequence number", ("\"seq\":7", "\"seq\":-7"));
    swap(list, "damaged", "manifest-minus-zero", "JSON", "minus zero", ("\"level\":9", "\"level\":-0"));
    swap(
        list,
        "damaged",
        "manifest-field-in-capitals",
        "JSON",
        "the name of a field in capital letters",
        ("\"epoch\"", "\"Epoch\""),
    );
    swap(
        list,
        "damaged",
        "manifest-field-absent",
        "Manifest",
        "a field that must be there is absent",
        ("\"seq\":7,", ""),
    );
    swap(
        list,
        "damaged",
        "manifest-schema-as-text",
        "Manifest",
        "the schema is a string",
        ("\"schema\":1", "\"schema\":\"1\""),
    );
    swap(list, "damaged", "manifest-schema-absent", "Manifest", "no schema", ("\"schema\":1,", ""));
    list.body("damaged", "manifest-map-order", "JSON", "the names of a map are in descending order", |t| {
        with_tools(&t, ["b", "a"])
    });
    list.body("damaged", "manifest-map-name-twice", "JSON", "a name comes twice in a map", |t| {
        with_tools(&t, ["a", "a"])
    });
}

// two tools, both of them the release notes
fn with_tools(text: &str, [first, second]: [&str; 2]) -> Vec<u8> {
    let at = text.find("\"notes\":").expect("the notes") + 8;
    let end = text[at..].find('}').expect("their end") + at + 1;
    let tool = format!("{{\"linux/amd64\":{}}}", &text[at..end]);
    format!("{},\"tools\":{{\"{first}\":{tool},\"{second}\":{tool}}}{}", &text[..end], &text[end..]).into_bytes()
}

fn spellings(list: &mut List) {
    swap(list, "damaged", "manifest-white-space", "JSON", "a space after a colon", ("\"seq\":7", "\"seq\": 7"));
    list.body("damaged", "manifest-line-end", "JSON", "a line end behind the document", |t| (t + "\n").into_bytes());
    swap(
        list,
        "damaged",
        "manifest-field-order",
        "JSON",
        "two fields have changed places",
        ("\"epoch\":1,\"seq\":7", "\"seq\":7,\"epoch\":1"),
    );
    swap(
        list,
        "damaged",
        "manifest-null",
        "JSON",
        "null for a field that could be absent",
        ("\"builder\"", "\"tools\":null,\"builder\""),
    );
    swap(
        list,
        "damaged",
        "manifest-null-text",
        "JSON",
        "null for a text that could be absent",
        ("\"created_at\":1700000000,", "\"created_at\":1700000000,\"min_importer\":null,"),
    );
    swap(
        list,
        "damaged",
        "manifest-empty-list",
        "JSON",
        "an optional list is there and empty",
        ("\"schema\":1,", "\"schema\":1,\"requires\":[],"),
    );
    swap(
        list,
        "damaged",
        "manifest-false",
        "JSON",
        "an optional boolean is there and false",
        ("\"created_at\":1700000000,", "\"created_at\":1700000000,\"security_update\":false,"),
    );
    swap(
        list,
        "damaged",
        "manifest-empty-map",
        "JSON",
        "an optional map is there and empty",
        ("\"platform\":\"linux/amd64\",", "\"platform\":\"linux/amd64\",\"lean\":{},"),
    );
    swap(
        list,
        "damaged",
        "manifest-escape",
        "JSON",
        "a character is escaped that need not be",
        ("oci:hello", "oci:h\\u0065llo"),
    );
    swap(list, "damaged", "manifest-escaped-slash", "JSON", "a slash is escaped", ("linux/amd64", "linux\\/amd64"));
    swap(
        list,
        "damaged",
        "manifest-escaped-field",
        "JSON",
        "a letter of a field's name is escaped",
        ("\"seq\"", "\"s\\u0065q\""),
    );
    list.body("damaged", "manifest-array-for-object", "JSON", "an array of the values stands for an object", |t| {
        let at = t.find("\"segment\":{\"digest\":").expect("the segment");
        let (head, tail) = t.split_at(at);
        let tail = tail
            .replacen("\"segment\":{\"digest\":", "\"segment\":[", 1)
            .replacen("\"size\":", "", 1)
            .replacen('}', "]", 1);
        format!("{head}{tail}").into_bytes()
    });
    list.body("damaged", "manifest-array", "JSON", "the document is an array", |t| format!("[{t}]").into_bytes());
}

fn future(list: &mut List) {
    swap(
        list,
        "unsupported",
        "manifest-schema-with-new-field",
        "Extensions",
        "schema 2, with a field that is not known",
        ("\"schema\":1", "\"schema\":2,\"colours\":[0.5]"),
    );
    swap(
        list,
        "unsupported",
        "manifest-schema-without-old-fields",
        "Extensions",
        "schema 2, and a field of schema 1 is absent",
        ("{\"schema\":1,\"vendor\":\"acme\",", "{ \"schema\":2,"),
    );
    swap(
        list,
        "unsupported",
        "manifest-requires-with-new-field",
        "Extensions",
        "a feature that is not known, and a field that is not known",
        ("\"schema\":1", "\"colours\":{},\"schema\":1,\"requires\":[\"telepathy\"]"),
    );
    swap(
        list,
        "unsupported",
        "manifest-requires-out-of-order",
        "Extensions",
        "features that are not known, out of order: a later version may have other rules for them",
        ("\"schema\":1", "\"schema\":1,\"requires\":[\"telepathy\",\"clairvoyance\"]"),
    );
    swap(
        list,
        "unsupported",
        "manifest-requires-lean",
        "Blobs",
        "a platform carried lean, required as it must be",
        ("\"schema\":1", "\"schema\":1,\"requires\":[\"lean\"]"),
    );
}

// what the look at schema and requires makes of other spellings
fn looks(list: &mut List) {
    let deep = |n: usize| format!("\"schema\":2,\"colours\":{}{}", "[".repeat(n), "]".repeat(n));
    for (verdict, name, rule, field) in [
        ("unsupported", "manifest-later-free-spelling", "schema 2, and values that no reader of version 1 takes", {
            "\"colours\":[1e400,-0,\"\\ud800\",{\"a\":1,\"a\":2}], \"s\\u0063hema\" : 2".to_string()
        }),
        ("unsupported", "manifest-later-schema-zero", "schema 0", "\"schema\":0".into()),
        ("unsupported", "manifest-later-schema-large", "schema 2^64 - 1", "\"schema\":18446744073709551615".into()),
        ("unsupported", "manifest-later-requires-null", "schema 2, and requires is null", {
            "\"schema\":2,\"requires\":null".into()
        }),
        ("unsupported", "manifest-later-schema-null", "the schema is null, and a feature that is not known", {
            "\"schema\":null,\"requires\":[\"telepathy\"]".into()
        }),
        ("unsupported", "manifest-later-nesting", "schema 2, 64 deep", deep(63)),
        ("damaged", "manifest-nesting", "schema 2, 65 deep", deep(64)),
        ("damaged", "manifest-schema-fraction", "schema 1.0", "\"schema\":1.0".into()),
        ("damaged", "manifest-schema-exponent", "schema 1e0", "\"schema\":1e0".into()),
        ("damaged", "manifest-schema-minus-zero", "schema -0", "\"schema\":-0".into()),
        ("damaged", "manifest-schema-leading-zero", "schema 01", "\"schema\":01".into()),
        ("damaged", "manifest-later-schema-fraction", "schema 2.0, which is not an integer", "\"schema\":2.0".into()),
        ("damaged", "manifest-later-schema-exponent", "schema 2e0, which is not an integer", "\"schema\":2e0".into()),
        ("damaged", "manifest-later-schema-too-large", "schema 2^64", "\"schema\":18446744073709551616".into()),
        ("damaged", "manifest-later-schema-twice", "schema 2 comes twice", "\"schema\":2,\"schema\":2".into()),
        ("damaged", "manifest-later-schema-twice-by-escape", "schema 2 comes twice, once with an escape", {
            "\"schema\":2,\"s\\u0063hema\":2".into()
        }),
        ("damaged", "manifest-later-requires-text", "schema 2, and requires is a string", {
            "\"schema\":2,\"requires\":\"telepathy\"".into()
        }),
        ("damaged", "manifest-later-requires-number", "schema 2, and requires has a number", {
            "\"schema\":2,\"requires\":[\"telepathy\",1]".into()
        }),
        ("damaged", "manifest-later-name-surrogate", "schema 2, and a name with a lone surrogate", {
            "\"schema\":2,\"\\ud800\":1".into()
        }),
    ] {
        let section = if name.ends_with("nesting") { "Limits" } else { "JSON" };
        swap(list, verdict, name, section, rule, ("\"schema\":1", &field));
    }
    list.body("damaged", "manifest-later-trailing", "JSON", "schema 2, and bytes follow the JSON value", |t| {
        (t.replacen("\"schema\":1", "\"schema\":2", 1) + "{}").into_bytes()
    });
    list.body("damaged", "manifest-later-not-utf-8", "JSON", "schema 2, and a byte that is not UTF-8", |t| {
        let mut bytes = t.replacen("\"schema\":1", "\"schema\":2,\"x\":\"?\"", 1).into_bytes();
        let at = bytes.iter().position(|b| *b == b'?').expect("it was put there");
        bytes[at] = 0xff;
        bytes
    });
}
