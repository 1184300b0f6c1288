//! Charts with the real Helm: what it renders, what it leaves out, and whether it reads what we pack.
//!
//! Runs with every Helm binary in `SEALIFT_TEST_HELMS` (separated like `PATH`); without it nothing is
//! tried, and the tests say so.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use sealift_bundler::chart::Chart;
use sealift_bundler::render::{Helm, Installation, Limits, RenderError, Rendered, Rendering, render};
use tempfile::TempDir;

fn helms() -> Vec<Helm> {
    let Some(paths) = std::env::var_os("SEALIFT_TEST_HELMS") else {
        eprintln!("SEALIFT_TEST_HELMS is not set: not tried with a real Helm");
        return Vec::new();
    };
    std::env::split_paths(&paths).map(|path| Helm::at(&path).expect("SEALIFT_TEST_HELMS names Helm")).collect()
}

fn write(folder: &Path, files: &[(&str, &str)]) {
    for (name, content) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, content).expect("a file");
    }
}

fn web() -> TempDir {
    let folder = TempDir::new().expect("a temporary folder");
    let chart = folder.path().join("web");
    write(
        &chart,
        &[
            (
                "Chart.yaml",
                "apiVersion: v2\nname: web\nversion: 1.2.3\ndependencies:\n- {name: db, version: 1.x.x, repository: ''}\n",
            ),
            ("values.yaml", "tag: 1.0.0\ndebug: false\n"),
            (".helmignore", "*.bak\n/private/\nREADME*\n!*\n"),
            ("templates/_helpers.tpl", "{{- define \"web.image\" -}}acme.example/web:{{ .Values.tag }}{{- end -}}"),
            (
                "templates/web.yaml",
                "apiVersion: apps/v1
kind: Deployment
metadata: {name: {{ .Release.Name }}-web, namespace: {{ .Release.Namespace }}}
spec:
  template:
    spec:
      initContainers:
        - name: wait
          image: {{ include \"web.image\" . | quote }}
      containers:
        - name: web
          image: {{ include \"web.image\" . }}
          imagePullPolicy: IfNotPresent
{{- if .Values.debug }}
        - name: debug
          image: acme.example/debug:{{ .Capabilities.KubeVersion.Minor }}
{{- end }}
---
apiVersion: v1
kind: List
items:
  - kind: Pod
    metadata: {name: extra}
    spec: {containers: [{name: a, image: acme.example/extra:1}]}
",
            ),
            (
                "templates/hook.yaml",
                "apiVersion: batch/v1
kind: Job
metadata: {name: migrate, annotations: {helm.sh/hook: pre-upgrade}}
spec: {template: {spec: {containers: [{name: m, image: 'acme.example/migrate:1'}]}}}
",
            ),
            (
                "templates/tests/test.yaml",
                "apiVersion: v1
kind: Pod
metadata: {name: probe, annotations: {helm.sh/hook: test}}
spec: {containers: [{name: t, image: 'acme.example/probe:1'}]}
",
            ),
            (
                "crds/thing.yaml",
                "apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.acme.example}
spec: {group: acme.example}
",
            ),
            ("charts/db/Chart.yaml", "apiVersion: v2\nname: db\nversion: 1.4.0\n"),
            (
                "charts/db/templates/db.yaml",
                "apiVersion: acme.example/v1
kind: Database
metadata: {name: db}
spec: {image: acme.example/db@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855}
",
            ),
            ("private/secret.txt", "left out"),
            ("README.txt", "left out"),
            ("notes.bak", "left out"),
            ("docs/x.bak", "left out"),
            ("docs/guide.txt", "kept"),
        ],
    );
    folder
}

fn images(rendered: &Rendered) -> Vec<String> {
    rendered.images.iter().map(|i| format!("{} {} {}", i.image, i.template, i.object)).collect()
}

fn installation<'a>(chart: &'a Chart, values: &[PathBuf]) -> Installation<'a> {
    Installation { release: "shop", namespace: "front", chart, values: values.to_vec(), kube_version: Some("v1.31.0") }
}

fn rendered(helm: &Helm, chart: &Chart, values: &[PathBuf]) -> Rendered {
    match render(Some(helm), &[installation(chart, values)]).expect("a sound chart") {
        Rendering::Rendered(mut list) => list.remove(0),
        Rendering::NotRendered(_) => unreachable!("Helm was given"),
    }
}

#[test]
fn every_image_is_found_with_its_template() {
    let folder = web();
    let chart = Chart::from_path(&folder.path().join("web")).expect("a sound chart");
    let values = folder.path().join("site.yaml");
    fs::write(&values, "debug: true\ntag: 2.0.0\n").expect("a file");
    for helm in helms() {
        let mut found = images(&rendered(&helm, &chart, std::slice::from_ref(&values)));
        found.sort();
        assert_eq!(
            found,
            [
                "acme.example/db@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 web/charts/db/templates/db.yaml Database/db",
                "acme.example/debug:31 web/templates/web.yaml Deployment/shop-web",
                "acme.example/extra:1 web/templates/web.yaml Pod/extra",
                "acme.example/migrate:1 web/templates/hook.yaml Job/migrate",
                "acme.example/probe:1 web/templates/tests/test.yaml Pod/probe",
                "acme.example/web:2.0.0 web/templates/web.yaml Deployment/shop-web",
                "acme.example/web:2.0.0 web/templates/web.yaml Deployment/shop-web",
            ],
            "{}",
            helm.version()
        );
        assert_eq!(rendered(&helm, &chart, &[]).images.len(), 6, "{}", helm.version());
    }
}

#[test]
fn packing_leaves_out_what_helm_leaves_out_and_helm_reads_the_result() {
    let folder = web();
    let chart = Chart::from_path(&folder.path().join("web")).expect("a sound chart");
    let ours = files(&chart.tgz);
    for helm in helms() {
        let output = Command::new(helm.path()).args(["package", "web"]).current_dir(folder.path()).output();
        let output = output.expect("helm package");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let path = folder.path().join("web-1.2.3.tgz");
        let theirs = Chart::from_path(&path).expect("what Helm packs is sound");
        assert_eq!(theirs.tgz, fs::read(&path).expect("a file"));
        assert_eq!(files(&theirs.tgz), ours, "{}", helm.version());
        assert_eq!(images(&rendered(&helm, &theirs, &[])), images(&rendered(&helm, &chart, &[])));
        let mine = folder.path().join("mine.tgz");
        fs::write(&mine, &chart.tgz).expect("a file");
        let output = Command::new(helm.path()).args(["show", "all"]).arg(&mine).output();
        let output = output.expect("helm show");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

fn files(tgz: &[u8]) -> BTreeSet<String> {
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(tgz));
    let entries = archive.entries().expect("a tar");
    entries.map(|e| e.expect("an entry").path().expect("a name").display().to_string()).collect()
}

#[test]
fn a_chart_that_does_not_render_is_refused_in_helms_words() {
    let folder = web();
    write(&folder.path().join("web"), &[("templates/bad.yaml", "a: {{ required \"tell me x\" .Values.x }}\n")]);
    let chart = Chart::from_path(&folder.path().join("web")).expect("a sound chart");
    for helm in helms() {
        let error = render(Some(&helm), &[installation(&chart, &[])]).expect_err("a missing value");
        assert!(matches!(&error, RenderError::Refused { message, .. } if message.contains("tell me x")), "{error}");
        let values = [folder.path().join("nowhere.yaml")];
        let error = render(Some(&helm), &[installation(&chart, &values)]).expect_err("no such file");
        assert!(error.to_string().contains("nowhere.yaml"), "{error}");
    }
}

#[test]
fn a_program_that_is_not_helm_is_told_apart() {
    let error = Helm::at(Path::new("/bin/true")).expect_err("not Helm");
    assert!(matches!(error, RenderError::NotHelm { .. }), "{error}");
    let error = Helm::find(None, Some("/nowhere/helm".as_ref()), None).expect_err("no such program");
    assert!(matches!(error, RenderError::Run { .. }), "{error}");
    let folder = TempDir::new().expect("a temporary folder");
    std::os::unix::fs::symlink("/bin/true", folder.path().join("helm")).expect("a link");
    assert!(Helm::find(None, None, Some(folder.path().as_os_str())).expect("passed over").is_none());
    for helm in helms() {
        let given = Helm::find(Some(helm.path()), Some("/nowhere".as_ref()), None).expect("Helm").expect("Helm");
        assert_eq!(given.version(), helm.version());
    }
    let web = web();
    let chart = Chart::from_path(&web.path().join("web")).expect("a sound chart");
    match render(None, &[installation(&chart, &[])]).expect("a warning only") {
        Rendering::NotRendered(warning) => assert!(warning.to_string().contains("--helm")),
        Rendering::Rendered(_) => unreachable!("there is no Helm"),
    }
}

/// What a chart with this template ends with under these limits, the limits of the process that rendered it, and
/// how long it took. The process is gone by then.
fn bomb(helm: &Helm, limits: Limits, release: &str, template: &str) -> (String, String, Duration) {
    let folder = TempDir::new().expect("a temporary folder");
    write(
        &folder.path().join("bomb"),
        &[("Chart.yaml", "apiVersion: v2\nname: bomb\nversion: 1.0.0\n"), ("templates/bomb.yaml", template)],
    );
    let chart = Chart::from_path(&folder.path().join("bomb")).expect("a sound chart");
    let (helm, begun) = (helm.clone().within(limits), Instant::now());
    let (error, seen) = std::thread::scope(|scope| {
        let renders = scope.spawn(|| {
            let what = Installation { release, ..installation(&chart, &[]) };
            render(Some(&helm), &[what]).expect_err("it takes too much")
        });
        let mut seen = String::new();
        while !renders.is_finished() {
            let found = rendering(release).first().map(|pid| fs::read_to_string(format!("/proc/{pid}/limits")));
            seen = found.and_then(Result::ok).filter(|text| !text.is_empty()).unwrap_or(seen);
            std::thread::sleep(Duration::from_millis(5));
        }
        (renders.join().expect("it answers"), seen)
    });
    assert_eq!(rendering(release), Vec::<String>::new(), "it goes on");
    assert!(matches!(&error, RenderError::Limit { .. }), "{error}");
    (error.to_string(), seen, begun.elapsed())
}

/// The processes that have this word on their command line.
fn rendering(release: &str) -> Vec<String> {
    let processes = fs::read_dir("/proc").expect("processes").filter_map(Result::ok);
    let has = |pid: &String| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|b| *b == 0).any(|word| word == release.as_bytes())
    };
    processes.map(|p| p.file_name().to_string_lossy().into_owned()).filter(has).collect()
}

#[test]
fn a_chart_that_wants_all_memory_is_stopped() {
    for helm in helms() {
        let limits = Limits { memory: 2 << 30, ..Limits::default() };
        let (error, seen, _) = bomb(&helm, limits, "hungry", "a: {{ until 40000000 | len }}");
        assert_eq!(error, "chart bomb (release hungry) takes more than 2048 MiB of memory to render");
        for (name, value) in [
            ("Max address space", "2147483648"),
            ("Max cpu time", "240"),
            ("Max file size", "67108865"),
            ("Max core file size", "0"),
        ] {
            let line = seen.lines().find(|line| line.starts_with(name)).expect("it was seen");
            assert_eq!(line[name.len()..].split_whitespace().next(), Some(value), "{line}");
        }
    }
}

#[test]
fn a_chart_that_never_ends_is_stopped() {
    const TWICE: &str = "{{- define \"twice\" }}{{ if gt . 0 }}{{ include \"twice\" (sub . 1 | int) }}\
        {{ include \"twice\" (sub . 1 | int) }}{{ end }}{{ end }}a: {{ include \"twice\" 60 }}";
    for helm in helms() {
        let limits = Limits { time: Duration::from_secs(1), ..Limits::default() };
        let (error, _, took) = bomb(&helm, limits, "endless", TWICE);
        assert_eq!(error, "chart bomb (release endless) takes more than 1s to render");
        assert!(took < Duration::from_secs(10), "{took:?}");
    }
}

#[test]
fn a_chart_that_prints_without_measure_is_stopped() {
    let template = "{{ range until 3000 }}{{ repeat 1000 \"x\" | quote }}: a\n{{ end }}";
    for helm in helms() {
        let limits = Limits { output: 1 << 20, ..Limits::default() };
        let (error, ..) = bomb(&helm, limits, "talkative", template);
        assert_eq!(error, "chart bomb (release talkative) takes more than 1048576 bytes of output to render");
    }
}

/// A program that says that it is Helm, and does this when it renders.
fn impostor(folder: &Path, script: &str) -> Helm {
    let (text, path) = (folder.join("script"), folder.join("helm"));
    fs::write(&text, format!("#!/bin/sh\n[ \"$1\" = template ] || exec echo v3.0.0\n{script}\n")).expect("a file");
    // written by another process: what this one has open for writing its children have open too, and cannot be run
    let copied = Command::new("install").args([&text, &path]).status().expect("install");
    assert!(copied.success());
    Helm::at(&path).expect("it says so")
}

#[test]
fn what_helm_started_ends_with_it() {
    let folder = TempDir::new().expect("a temporary folder");
    let helm = impostor(folder.path(), "sh -c 'sleep 1000; :' slow");
    let limits = Limits { time: Duration::from_millis(300), ..Limits::default() };
    bomb(&helm, limits, "slow", "a: b");
}

#[test]
fn a_helm_that_ran_out_of_processor_time_is_told_as_such() {
    let folder = TempDir::new().expect("a temporary folder");
    let helm = impostor(folder.path(), "echo 'SIGXCPU: CPU time limit exceeded' >&2; exit 2");
    let (error, ..) = bomb(&helm, Limits::default(), "busy", "a: b");
    assert_eq!(error, "chart bomb (release busy) takes more than 120s to render");
}
