use std::fs;
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

use super::*;

const CHART_YAML: &str = "apiVersion: v2\nname: web\nversion: 1.2.3\nappVersion: 2.0\n";

/// A packed chart of these entries: name, type, content (or link target).
fn packed(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
    let mut tar = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (name, kind, content) in entries {
        let mut header = Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        // set by hand: the builder itself refuses names that a hostile chart may have
        header.as_gnu_mut().expect("a GNU header").name[..name.len()].copy_from_slice(name.as_bytes());
        if matches!(kind, EntryType::Symlink | EntryType::Link) {
            header.set_link_name(content).expect("a link target");
            header.set_size(0);
            header.set_cksum();
            tar.append(&header, &b""[..]).expect("memory");
        } else {
            header.set_size(content.len() as u64);
            header.set_cksum();
            tar.append(&header, content.as_bytes()).expect("memory");
        }
    }
    tar.into_inner().and_then(GzEncoder::finish).expect("memory")
}

fn file<'a>(name: &'a str, content: &'a str) -> (&'a str, EntryType, &'a str) {
    (name, EntryType::Regular, content)
}

fn refusal(tgz: Vec<u8>) -> String {
    let error = Chart::from_bytes("web.tgz", tgz).expect_err("a hostile chart");
    match std::error::Error::source(&error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[test]
fn a_packed_chart_stays_as_it_is() {
    let tgz = packed(&[
        ("web/", EntryType::Directory, ""),
        file("web/Chart.yaml", CHART_YAML),
        file("web/templates/a.yaml", "kind: A\n"),
    ]);
    let chart = Chart::from_bytes("web.tgz", tgz.clone()).expect("a sound chart");
    assert_eq!(chart.tgz, tgz);
    assert_eq!(chart.digest, Digest::of(&tgz));
    assert_eq!(chart.metadata.name, "web");
    assert_eq!(chart.metadata.version.to_string(), "1.2.3");
    assert_eq!(chart.metadata.app_version.as_deref(), Some("2.0"));
    assert_eq!(chart.file_name(), "web-1.2.3.tgz");
}

#[test]
fn refuses_hostile_charts() {
    let own = file("web/Chart.yaml", CHART_YAML);
    let long = format!("web/{}x", "a/".repeat(40));
    for (entries, part) in [
        (vec![own, ("web/Chart.lock", EntryType::Symlink, "/etc/passwd")], "regular files only"),
        (vec![own, ("web/x", EntryType::Link, "web/Chart.yaml")], "regular files only"),
        (vec![own, ("web/x", EntryType::Fifo, "")], "regular files only"),
        (vec![own, ("web/x", EntryType::Char, "")], "regular files only"),
        (vec![own, ("web/x", EntryType::GNUSparse, "")], ""),
        (vec![own, ("x", EntryType::XHeader, "13 size=1536\n"), file("web/x", "x")], "has two sizes"),
        (vec![own, ("x", EntryType::XHeader, "21 GNU.sparse.size=1\n"), file("web/x", "x")], "is a sparse file"),
        (vec![own, ("web/x/", EntryType::Directory, "hidden")], "has content"),
        (vec![own, file("web/x/", "hidden")], "folder's name"),
        (vec![own, file("web/../../x", "")], "leaves its folder"),
        (vec![own, file("/web/x", "")], "leaves its folder"),
        (vec![own, file("../web/x", "")], "leaves its folder"),
        (vec![own, file("web/./x", "")], "leaves its folder"),
        (vec![own, file("web//x", "")], "leaves its folder"),
        (vec![own, file("web\\x", "")], "leaves its folder"),
        (vec![own, file("C:/x", "")], "leaves its folder"),
        (vec![own, file("web/a\nb", "")], "leaves its folder"),
        (vec![own, file(&long, ""), file(&long, "")], "twice"),
        (vec![own, file("other/x", "")], "second top folder"),
        (vec![own, own], "twice"),
        (vec![file("Chart.yaml", CHART_YAML)], "not in the chart's folder"),
        (vec![file("other/Chart.yaml", CHART_YAML)], "the folder is \"other\""),
        (vec![file("web/values.yaml", "")], "not there"),
        (vec![], "holds no file"),
        (vec![file("web/Chart.yaml", "name: web\nversion: 1.2.3\n")], "apiVersion"),
        (vec![file("web/Chart.yaml", "apiVersion: v9\nname: web\nversion: 1.2.3\n")], "v1 and v2"),
        (vec![file("web/Chart.yaml", "apiVersion: v2\nname: web\nversion: v1.2\n")], "not SemVer"),
        (vec![file("web/Chart.yaml", "apiVersion: v2\nname: ../web\nversion: 1.2.3\n")], "letters"),
        (vec![file("web/Chart.yaml", "apiVersion: v2\nname: web\nversion: 1.2.3\ntype: library\n")], "library"),
        (vec![file("web/Chart.yaml", "apiVersion: v2\nname: web\nversion: 1.2.3\nname: x\n")], "Chart.yaml"),
    ] {
        let text = refusal(packed(&entries));
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn refuses_broken_and_swollen_archives() {
    let sound = packed(&[file("web/Chart.yaml", CHART_YAML)]);
    for length in [0, 5, 20, sound.len() / 2, sound.len() - 1] {
        assert!(Chart::from_bytes("web.tgz", sound[..length].to_vec()).is_err(), "{length}");
    }
    let mut flipped = sound;
    let at = flipped.len() - 6;
    flipped[at] ^= 1;
    assert!(refusal(flipped).contains("sound"), "a wrong checksum");
    let mut zeros = GzEncoder::new(Vec::new(), Compression::best());
    let piece = vec![0; 1 << 20];
    for _ in 0..130 {
        zeros.write_all(&piece).expect("memory");
    }
    assert!(Chart::from_bytes("web.tgz", zeros.finish().expect("memory")).is_err());
    let big = "x".repeat(6 << 20);
    let big = packed(&[file("web/Chart.yaml", CHART_YAML), file("web/big", &big)]);
    assert!(refusal(big).contains("the most that Helm reads"));
}

#[test]
fn dependencies_must_be_vendored_in_the_locked_version() {
    let own =
        "apiVersion: v2\nname: web\nversion: 1.2.3\ndependencies:\n- {name: db, version: ~1, repository: https://x}\n";
    let lock = "dependencies:\n- {name: db, version: 1.0.1, repository: x}\ndigest: x\n";
    let sub = "apiVersion: v2\nname: db\nversion: 1.0.1\n";
    let missing = refusal(packed(&[file("web/Chart.yaml", own)]));
    assert!(missing.contains("depends on db ~1"), "{missing}");
    let folder = packed(&[
        file("web/Chart.yaml", own),
        file("web/Chart.lock", lock),
        file("web/charts/db-folder/Chart.yaml", sub),
    ]);
    let chart = Chart::from_bytes("web.tgz", folder).expect("a vendored dependency");
    assert_eq!(chart.metadata.dependencies[0].name, "db");
    let other = refusal(packed(&[
        file("web/Chart.yaml", own),
        file("web/Chart.lock", lock),
        file("web/charts/db/Chart.yaml", "apiVersion: v2\nname: db\nversion: 1.0.2\n"),
    ]));
    assert!(other.contains("charts/ has db 1.0.2, Chart.lock says 1.0.1"), "{other}");
    let hostile = refusal(packed(&[
        file("web/Chart.yaml", own),
        file("web/charts/db/Chart.yaml", sub),
        file("web/charts/x-1.0.0.tgz", "not a chart"),
    ]));
    assert!(hostile.contains("web.tgz/charts/x-1.0.0.tgz"), "{hostile}");
}

fn folder(order: &[usize]) -> TempDir {
    let folder = TempDir::new().expect("a temporary folder");
    let files = [
        ("Chart.yaml", CHART_YAML),
        ("values.yaml", "a: 1\n"),
        ("templates/b.yaml", "kind: B\n"),
        ("templates/a.yaml", "kind: A\n"),
        (".helmignore", "*.bak\nnotes/\n"),
        ("values.yaml.bak", "left out"),
        ("notes/x", "left out"),
    ];
    for number in order {
        let (name, content) = files[*number];
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, content).expect("a file");
    }
    folder
}

#[test]
fn packing_is_the_same_whatever_the_machine() {
    use std::os::unix::fs::PermissionsExt;
    let one = folder(&[0, 1, 2, 3, 4, 5, 6]);
    let other = folder(&[6, 5, 4, 3, 2, 1, 0]);
    for (name, mode) in [("values.yaml", 0o600), ("templates/a.yaml", 0o777), ("templates", 0o700)] {
        let path = other.path().join(name);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
    }
    let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(86_400);
    let touched = fs::File::options().write(true).open(other.path().join("values.yaml")).expect("a file");
    touched.set_modified(old).expect("a time");
    let one = Chart::from_path(one.path()).expect("a sound chart");
    let other = Chart::from_path(other.path()).expect("a sound chart");
    assert_eq!(one.tgz, other.tgz);
    let mut names = Vec::new();
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(one.tgz.as_slice()));
    for entry in archive.entries().expect("a tar") {
        let entry = entry.expect("an entry");
        names.push(String::from_utf8(entry.path_bytes().into_owned()).expect("a name"));
        assert_eq!((entry.header().mode().ok(), entry.header().mtime().ok()), (Some(0o644), Some(0)));
    }
    let expected = ["Chart.yaml", ".helmignore", "templates/a.yaml", "templates/b.yaml", "values.yaml"];
    assert_eq!(names, expected.map(|name| format!("web/{name}")));
}

#[test]
fn a_folder_with_a_link_is_refused() {
    let chart = folder(&[0, 1]);
    std::os::unix::fs::symlink("/etc/hostname", chart.path().join("Chart.lock")).expect("a link");
    let error = Chart::from_path(chart.path()).expect_err("a link");
    assert!(matches!(&error, ChartError::Entry { entry, .. } if entry == "Chart.lock"), "{error}");
    let missing = Chart::from_path(Path::new("/nowhere/chart")).expect_err("no such folder");
    assert!(matches!(missing, ChartError::Read { .. }), "{missing}");
}
