//! What a site has set: looked at, changed in a draft, compared, installed; by two people at once; and no secret of it
//! where it does not belong.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use sealift_fixtures::product::{NAMESPACE, PRODUCT, Product};
use sealift_tests::lab::Lab;
use sealift_tests::{Cluster, Containerd, Helm, Ran, helm, run_command, run_on_terminal};
use serde_json::{Value, json};

/// In every secret of this test.
const SECRET: &str = "hunter2";

#[test]
fn values_are_kept_drafted_compared_and_installed_with_helm_4() {
    journey(Containerd::V2, Helm::V4);
}

#[test]
fn values_are_kept_drafted_compared_and_installed_with_helm_3() {
    journey(Containerd::Debian, Helm::V3);
}

/// An operator, and all that was said to them.
struct Desk<'a> {
    lab: &'a Lab,
    cluster: &'a Cluster,
    helm: PathBuf,
    said: String,
}

impl Desk<'_> {
    fn command(&self, store: &str, args: &[&str]) -> Command {
        let mut command = Command::new(sealift_tests::importer());
        command.env_remove("KUBECONFIG").arg("--store").arg(self.lab.path(store)).args(args);
        command.arg("--kubeconfig").arg(self.cluster.kubeconfig()).arg("--helm").arg(&self.helm);
        command.arg("--containerd-socket").arg(self.cluster.socket());
        command
    }

    fn run(&mut self, args: &[&str]) -> Ran {
        let ran = run_command(&mut self.command("store", args));
        self.said += &format!("{}{}", ran.stdout, ran.stderr);
        ran
    }

    /// The same as a document.
    fn ask(&mut self, args: &[&str]) -> Value {
        self.run(&[&["--json"], args].concat()).ok().json()
    }

    fn install(&mut self, bundle: &Path, more: &[&str]) -> Ran {
        self.run(&[&["install", "--yes", &bundle.display().to_string()], more].concat()).ok()
    }

    /// `values edit` with a shell script as the editor, which is given the file.
    fn edit(&mut self, script: &str, typed: &str) -> Ran {
        let editor = self.lab.path("editor");
        put_program(&editor, script);
        let mut command = self.command("store", &["values", "edit", PRODUCT]);
        let ran = run_on_terminal(command.env("EDITOR", &editor), typed);
        self.said += &ran.stdout;
        ran
    }

    fn kubectl(&self, args: &[&str]) -> String {
        self.cluster.kubectl(args).ok().stdout
    }

    fn drafts(&self) -> usize {
        self.kubectl(&["-n", "sealift-system", "get", "secrets", "-o", "name"]).matches(".draft").count()
    }
}

fn put_program(path: &Path, script: &str) {
    fs::write(path, format!("#!/bin/sh\nset -e\n{script}\n")).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("its own file");
}

/// The recipe with values of the vendor's, its web chart with a schema.
fn recipe(product: &Product) -> PathBuf {
    let schema = r#"{"type": "object", "properties": {
        "replicas": {"type": "integer"}, "password": {"type": "string", "pattern": "^[a-z0-9-]+$"}}}"#;
    fs::write(product.dir.join("charts/shop-web/values.schema.json"), schema).expect("written");
    fs::write(product.dir.join("vendor.yaml"), "footer: vendor\nreplicas: 1\n").expect("written");
    let text = fs::read_to_string(&product.recipe).expect("the recipe");
    let chart = "  - name: shop-web\n";
    assert!(text.contains(chart), "{text}");
    let path = product.dir.join("values.yaml.recipe");
    fs::write(&path, text.replace(chart, &format!("{chart}    values: [./vendor.yaml]\n"))).expect("written");
    path
}

fn differences(report: &Value) -> Vec<String> {
    let line = |d: &Value| format!("{} {} {}", d["path"].as_str().expect("a path"), d["from"], d["to"]);
    report["differences"].as_array().expect("a list").iter().map(line).collect()
}

fn journey(containerd: Containerd, which: Helm) {
    if !sealift_tests::servers() {
        return;
    }
    let lab = Lab::new();
    let v1 = lab.build(&recipe(&lab.v1), "v1.sealift");
    lab.trust();
    let cluster = Cluster::start("values", containerd);
    // what Helm is called with is written down
    let (wrapper, calls) = (lab.path("helm"), lab.path("calls"));
    let real = helm(which);
    put_program(&wrapper, &format!("echo \"$@\" >> {}\nexec {} \"$@\"", calls.display(), real.display()));
    let mut desk = Desk { lab: &lab, cluster: &cluster, helm: wrapper, said: String::new() };
    let secret = |name: &str| {
        let path = lab.path(&format!("{name}.yaml"));
        fs::write(&path, format!("shop-web: {{password: {SECRET}-{name}}}\n")).expect("written");
        path.display().to_string()
    };

    let none = desk.run(&["values", "get", PRODUCT]).ends_with(18);
    assert!(none.stderr.contains("is not installed"), "{}", none.stderr);
    let _ = desk.install(&v1, &["-f", &secret("one"), "--set", "shop-web.replicas=1"]);

    looks_at_what_is_set(&mut desk);
    refuses_what_charts_and_products_do(&mut desk, &secret("BAD"));
    a_draft_is_installed(&mut desk, &v1, &secret("two"));
    a_rollback_leaves_it_out(&mut desk);
    two_people_do_not_overwrite_each_other(&mut desk);
    an_editor_is_an_editor(&mut desk);
    a_draft_ends_with_its_product(&mut desk, &v1);
    no_secret_is_where_it_does_not_belong(&desk, &real, &calls);
}

fn looks_at_what_is_set(desk: &mut Desk<'_>) {
    let got = desk.ask(&["values", "get", PRODUCT]);
    assert_eq!(got["values"], json!({"shop-web": {"password": "(secret)", "replicas": 1}}));
    assert_eq!((&got["revision"], &got["draft"]), (&json!(1), &Value::Null));
    let text = desk.run(&["values", "get", PRODUCT]).ok().stdout;
    assert_eq!(text, "shop-web:\n  password: \"(secret)\"\n  replicas: 1\n");
    let all = desk.ask(&["values", "get", PRODUCT, "--all"]);
    assert_eq!(
        all["values"],
        json!({"shop-db": {}, "shop-web": {"footer": "vendor", "password": "(secret)", "replicas": 1}})
    );
    // only who asks for them is shown secrets
    let shown = run_command(&mut desk.command("store", &["values", "get", PRODUCT, "--show-secrets"])).ok();
    assert!(shown.stdout.contains(SECRET), "{}", shown.stdout);
    let none = desk.run(&["values", "diff", PRODUCT]).ends_with(18);
    assert!(none.stderr.contains("there is no draft"), "{}", none.stderr);
}

fn refuses_what_charts_and_products_do(desk: &mut Desk<'_>, bad: &str) {
    let unknown = desk.run(&["values", "set", PRODUCT, "shop-shelf.a=1"]).ends_with(2);
    assert!(unknown.stderr.contains("\"shop-shelf\", which is no component"), "{}", unknown.stderr);
    let missing = desk.run(&["values", "set", PRODUCT, "--unset", "shop-web.nothing"]).ends_with(2);
    assert!(missing.stderr.contains("shop-web.nothing is not set"), "{}", missing.stderr);
    let many = desk.run(&["values", "set", PRODUCT, "shop-web.replicas=many"]).ends_with(13);
    assert!(many.stderr.contains("replicas"), "{}", many.stderr);
    // Helm quotes what a schema refuses
    let refused = desk.run(&["values", "set", PRODUCT, "-f", bad]).ends_with(13);
    assert!(refused.stderr.contains("'(secret)' does not match"), "{}", refused.stderr);
    let bundle = desk.lab.path("v1.sealift").display().to_string();
    let refused = desk.run(&["install", "--yes", &bundle, "-f", bad]).ends_with(13);
    assert!(refused.stderr.contains("'(secret)' does not match"), "{}", refused.stderr);
    assert_eq!(desk.drafts(), 0);
}

fn a_draft_is_installed(desk: &mut Desk<'_>, bundle: &Path, secret: &str) {
    let changes = ["shop-web.password \"(secret)\" \"(secret)\"", "shop-web.replicas 1 2"];
    let written = desk.ask(&["values", "set", PRODUCT, "shop-web.replicas=2", "-f", secret]);
    assert_eq!((&written["draft"], &written["checked"]), (&json!(true), &json!(true)));
    assert_eq!(differences(&written), changes);
    let diff = desk.ask(&["values", "diff", PRODUCT]);
    assert_eq!((&diff["from"], &diff["to"]), (&json!("revision 1"), &json!("the draft")));
    assert_eq!(differences(&diff), changes);
    let kept = desk.run(&["values", "get", PRODUCT]).ok();
    assert!(kept.stdout.contains("replicas: 1") && kept.stderr.contains("a draft of other values waits"));
    assert!(desk.run(&["values", "get", PRODUCT, "--draft"]).ok().stdout.contains("replicas: 2"));

    let installed = desk.install(bundle, &[]);
    assert!(installed.stderr.contains("site values: from the draft that"), "{}", installed.stderr);
    assert_eq!(desk.drafts(), 0);
    let replicas = ["-n", NAMESPACE, "get", "deployment", "shop-web", "-o", "jsonpath={.spec.replicas}"];
    assert_eq!(desk.kubectl(&replicas), "2");
    let got = desk.ask(&["values", "get", PRODUCT]);
    assert_eq!((&got["revision"], &got["values"]["shop-web"]["replicas"]), (&json!(2), &json!(2)));
    assert_eq!(differences(&desk.ask(&["values", "diff", PRODUCT, "--revision", "1", "--revision", "2"])), changes);
    let same = desk.ask(&["values", "set", PRODUCT, "shop-web.replicas=2"]);
    assert_eq!((&same["draft"], &same["changed"]), (&json!(false), &json!(false)));
}

fn a_rollback_leaves_it_out(desk: &mut Desk<'_>) {
    let _ = desk.ask(&["values", "set", PRODUCT, "shop-web.note=draft"]);
    let back = desk.run(&["rollback", PRODUCT, "--yes"]).ok();
    assert!(back.stderr.contains("it is not used now, and stays"), "{}", back.stderr);
    assert_eq!(desk.drafts(), 1);
    let diff = desk.ask(&["values", "diff", PRODUCT]);
    assert_eq!(diff["from"], "revision 3");
    assert_eq!(differences(&diff).len(), 3, "{diff}");
    let _ = desk.run(&["values", "discard", PRODUCT]).ok();
    assert_eq!(desk.drafts(), 0);
    let _ = desk.run(&["values", "discard", PRODUCT]).ends_with(18);
    assert_eq!(desk.ask(&["values", "get", PRODUCT])["values"]["shop-web"]["note"], Value::Null);
}

fn two_people_do_not_overwrite_each_other(desk: &mut Desk<'_>) {
    let _ = desk.run(&["values", "edit", PRODUCT]).ends_with(15);
    // somebody at another machine is faster, first with the first draft, then with another one
    for (note, drafts) in [("theirs", 1), ("again", 1)] {
        let other = desk.command("other", &["values", "set", PRODUCT, &format!("shop-web.note={note}")]);
        let words: Vec<String> = std::iter::once(other.get_program())
            .chain(other.get_args())
            .map(|word| format!("'{}'", word.to_string_lossy()))
            .collect();
        let script = format!("sed -i 's/replicas: 1/replicas: 7/' \"$1\"\n{}", words.join(" "));
        let late = desk.edit(&script, "").ends_with(19).stdout;
        assert!(late.contains("somebody else has changed the draft"), "{late}");
        assert_eq!(desk.drafts(), drafts);
        let draft = desk.ask(&["values", "get", PRODUCT, "--draft"]);
        assert_eq!(
            (&draft["values"]["shop-web"]["note"], &draft["values"]["shop-web"]["replicas"]),
            (&json!(note), &json!(1))
        );
    }
}

fn an_editor_is_an_editor(desk: &mut Desk<'_>) {
    let facts = desk.lab.path("facts");
    let script = format!(
        "stat -c '%a %n' \"$1\" \"$(dirname \"$1\")\" > {}\ngrep -q {SECRET} \"$1\"\nsed -i 's/replicas: 1/replicas: 3/' \"$1\"",
        facts.display()
    );
    let edited = desk.edit(&script, "").ok().stdout;
    assert!(edited.contains("written as a draft"), "{edited}");
    let facts = fs::read_to_string(facts).expect("the editor's words");
    let modes: Vec<&str> = facts.lines().map(|line| line.split(' ').next().unwrap_or_default()).collect();
    assert!(modes == ["600", "700"] && facts.contains("/store/tmp/edit-"), "{facts}");
    let draft = desk.ask(&["values", "get", PRODUCT, "--draft"]);
    assert_eq!(
        (&draft["values"]["shop-web"]["note"], &draft["values"]["shop-web"]["replicas"]),
        (&json!("again"), &json!(3))
    );
    // a mistake is told, and can be mended; or nothing is changed
    let typo = desk.edit(&format!("echo '  oops: [{SECRET}' >> \"$1\""), "n\n").ends_with(2).stdout;
    assert!(typo.contains("Edit it again? [y/N]"), "{typo}");
    let gone = desk.edit("exit 3", "").ends_with(15).stdout;
    assert!(gone.contains("nothing was changed"), "{gone}");
    let nothing = desk.edit("true", "").ok().stdout;
    assert!(nothing.contains("nothing was changed"), "{nothing}");
    assert_eq!(fs::read_dir(desk.lab.path("store/tmp")).expect("the store").count(), 0);
    let unset = desk.ask(&["values", "set", PRODUCT, "--unset", "shop-web.note", "shop-web.replicas=1"]);
    assert_eq!((&unset["draft"], &unset["changed"]), (&json!(false), &json!(true)), "as it is installed: no draft");
    assert_eq!(desk.drafts(), 0);
}

fn a_draft_ends_with_its_product(desk: &mut Desk<'_>, bundle: &Path) {
    let _ = desk.ask(&["values", "set", PRODUCT, "shop-web.replicas=2"]);
    let gone = desk.run(&["uninstall", PRODUCT, "--yes"]).ok().stdout;
    let removal = gone.lines().find(|line| line.contains("drafts of them")).expect("what removes them");
    let removal = removal.split(": kubectl ").nth(1).expect("a command").to_string();
    // it was for what is gone
    let again = desk.install(bundle, &["--set", "shop-web.replicas=1"]);
    assert!(!again.stderr.contains("draft"), "{}", again.stderr);
    let _ = desk.run(&["values", "diff", PRODUCT]).ends_with(18);
    let _ = desk.ask(&["values", "set", PRODUCT, "shop-web.note=mine"]);
    // --reset-values forgets it
    let reset = desk.install(bundle, &["--reset-values"]);
    assert!(reset.stderr.contains("is forgotten too"), "{}", reset.stderr);
    assert_eq!((desk.drafts(), &desk.ask(&["values", "get", PRODUCT])["values"]), (0, &json!({})));
    let _ = desk.ask(&["values", "set", PRODUCT, "shop-web.note=mine"]);
    let _ = desk.kubectl(&removal.split(' ').collect::<Vec<_>>());
    assert_eq!(desk.kubectl(&["-n", "sealift-system", "get", "secrets", "-o", "name"]), "");
}

fn no_secret_is_where_it_does_not_belong(desk: &Desk<'_>, helm: &Path, calls: &Path) {
    let has = |what: &str, text: &str| {
        let line = text.lines().find(|line| line.contains(SECRET));
        assert_eq!(line, None, "{what}");
    };
    has("what was said", &desk.said);
    has("Helm's command lines", &fs::read_to_string(calls).expect("Helm was called"));
    for kind in ["configmaps", "leases", "events", "pods", "deployments"] {
        has(kind, &desk.kubectl(&["get", kind, "-A", "-o", "yaml"]));
    }
    let notes = "jsonpath={range .items[*]}{.metadata}{\"\\n\"}{end}";
    has("what stands on Secrets", &desk.kubectl(&["get", "secrets", "-A", "-o", notes]));
    for args in [&["list", "-A"][..], &["history", "shop-web"], &["status", "shop-web"], &["get", "notes", "shop-web"]]
    {
        let mut command = Command::new(helm);
        command.args(args).args(["-n", NAMESPACE]).env("KUBECONFIG", desk.cluster.kubeconfig());
        has("Helm's words", &run_command(&mut command).ok().stdout);
    }
    let found = run_command(Command::new("grep").args(["-rla", SECRET]).arg(desk.lab.path("store")));
    assert_eq!((found.code, found.stdout.as_str()), (Some(1), ""), "the store");
}
