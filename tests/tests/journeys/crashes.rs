//! Runs that are killed at any moment: the same command again finishes the job, a rollback undoes it, nothing is lost.
//!
//! A product lives through rounds of seven scenes, from nothing to nothing; in each, one run is killed. A few of the
//! moments are drawn from a seed. With `SEALIFT_SWEEP=all`, as `cargo xtask sweep` sets it, every step of every scene has
//! its turn: each line on standard error, each write into the ledger, each sync of a file, and times between them.
//! `SEALIFT_CRASH_SEED` draws others.

use std::collections::VecDeque;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use sealift_fixtures::product::{NAMESPACE, PRODUCT, RELEASES};
use sealift_tests::kill::{Ended, LedgerWatch, Moment, survivors};
use sealift_tests::lab::{Lab, helm_says};
use sealift_tests::{Cluster, Containerd, Helm, KILLED_RUNS, Ran, Tally, figure, run_command};
use serde_json::Value;

use super::releases::without;

/// Rounds of the test suite; the whole sweep has as many as there are steps in the longest scene.
const ROUNDS: usize = 3;
/// Times at which each scene is killed in the whole sweep, beside its steps.
const TIMES: usize = 3;
/// So many rounds may be given up, each for a run that was lost, before the sweep ends.
const GIVEN_UP: usize = 5;

#[test]
fn runs_that_are_killed_are_finished_with_helm_4() {
    sweep(Containerd::V2, Helm::V4, 4);
}

#[test]
fn runs_that_are_killed_are_finished_with_helm_3() {
    sweep(Containerd::Debian, Helm::V3, 3);
}

/// What is run, one after another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scene {
    First,
    Values,
    Upgrade,
    Back,
    Dropped,
    Prune,
    Uninstall,
}

const SCENES: [Scene; 7] =
    [Scene::First, Scene::Values, Scene::Upgrade, Scene::Back, Scene::Dropped, Scene::Prune, Scene::Uninstall];

/// What runs after a scene.
struct State {
    version: &'static str,
    greeting: &'static str,
    releases: &'static [&'static str],
}

impl Scene {
    fn title(self) -> &'static str {
        match self {
            Self::First => "first installation",
            Self::Values => "other values",
            Self::Upgrade => "upgrade",
            Self::Back => "rollback",
            Self::Dropped => "upgrade that drops a chart",
            Self::Prune => "prune",
            Self::Uninstall => "uninstall",
        }
    }

    /// `None`: nothing.
    fn state(self) -> Option<State> {
        let state = |version, greeting, releases| Some(State { version, greeting, releases });
        match self {
            Self::First => state("1.0.0", "one", &RELEASES),
            Self::Values | Self::Back => state("1.0.0", "two", &RELEASES),
            Self::Upgrade => state("2.0.0", "three", &RELEASES),
            Self::Dropped | Self::Prune => state("2.1.0", "four", &RELEASES[1..]),
            Self::Uninstall => None,
        }
    }

    /// What ran before, if a rollback can bring it back in place of this scene.
    fn undone(self) -> Option<State> {
        match self {
            Self::Values => Self::First.state(),
            Self::Upgrade => Self::Values.state(),
            Self::Dropped => Self::Back.state(),
            _ => None,
        }
    }
}

/// Numbers below 1000 from a seed (xorshift64).
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % 1000
    }

    /// One of the steps from 1 to `last`.
    fn step(&mut self, last: usize) -> usize {
        1 + usize::try_from(self.next()).expect("small") % last.max(1)
    }

    /// A time within this one.
    fn time(&mut self, whole: Duration) -> Moment {
        Moment::After(whole.mul_f64(f64::from(u32::try_from(self.next()).expect("small")) / 1000.0))
    }
}

/// Version 1, version 2 with another CRD, and version 2.1 without the database.
fn bundles(lab: &Lab) -> [PathBuf; 3] {
    let crd = lab.v2.charts[1].join("crds/orders.yaml");
    let text = fs::read_to_string(&crd).expect("the CRD");
    fs::write(crd, text.replace("item: {type: string}", "item: {type: string}\n                note: {type: string}"))
        .expect("written");
    let smaller = without(&lab.v2, "shop-db");
    let text = fs::read_to_string(&smaller).expect("the recipe");
    fs::write(&smaller, text.replace("version: 2.0.0", "version: 2.1.0").replace("seq: 2", "seq: 3")).expect("written");
    [(&lab.v1.recipe, "v1.sealift"), (&lab.v2.recipe, "v2.sealift"), (&smaller, "v3.sealift")]
        .map(|(recipe, name)| lab.build(recipe, name))
}

struct World {
    lab: Lab,
    bundles: [PathBuf; 3],
    cluster: Cluster,
    helm: Helm,
}

impl World {
    fn command(&self, scene: Scene) -> Command {
        let install = |bundle: &PathBuf| {
            let greeting = format!("shop-web.greeting={}", scene.state().expect("an installation").greeting);
            self.lab.install_command(bundle, &self.cluster, self.helm, &["--set", &greeting])
        };
        let command = match scene {
            Scene::First | Scene::Values => install(&self.bundles[0]),
            Scene::Upgrade => install(&self.bundles[1]),
            Scene::Dropped => install(&self.bundles[2]),
            Scene::Back => return self.other(&["rollback", PRODUCT]),
            Scene::Prune => return self.other(&["prune", "--keep", "1"]),
            Scene::Uninstall => return self.other(&["uninstall", PRODUCT]),
        };
        self.quick(command)
    }

    fn other(&self, words: &[&str]) -> Command {
        let mut command = self.lab.importer(["--json"]);
        command.args(words).arg("--yes").arg("--kubeconfig").arg(self.cluster.kubeconfig());
        command.arg("--containerd-socket").arg(self.cluster.socket());
        if words[0] != "prune" {
            command.arg("--helm").arg(sealift_tests::helm(self.helm));
        }
        self.quick(command)
    }

    fn quick(&self, mut command: Command) -> Command {
        command.args(["--lock-duration", "3"]).env("TMPDIR", self.lab.path("temporary"));
        command
    }

    fn records(&self) -> Vec<Value> {
        let history = self.lab.ask(&self.cluster, self.helm, &["history", PRODUCT]);
        if history.code == Some(18) { Vec::new() } else { history.ok().json().as_array().expect("records").clone() }
    }

    /// The same command again, unless the killed run was through with it; `undo`: a rollback in its place.
    fn again(&self, scene: Scene, undo: bool, before: &[Value]) -> Ran {
        let records = self.records();
        let (last, had) = (records.last(), before.last());
        let is = |outcome: &str| last.is_some_and(|last| last["outcome"] == outcome);
        let to = |revision: &Value| self.other(&["rollback", PRODUCT, &revision.to_string()]);
        let mut command = match (undo, scene) {
            // what has begun since is what a rollback undoes by itself
            (true, _) if is("installing") => self.other(&["rollback", PRODUCT]),
            (true, _) => to(&had.expect("something ran")["revision"]),
            // another one would go forth again
            (false, Scene::Back) if is("installed") && last.map(|r| &r["revision"]) != had.map(|r| &r["revision"]) => {
                to(&last.expect("looked at")["restores"])
            }
            _ => self.command(scene),
        };
        run_command(&mut command)
    }

    /// What is wrong, if it is not all as it should be.
    fn wrong(&self, state: Option<&State>) -> Option<String> {
        let records = self.records();
        let of = |outcome: &str| records.iter().filter(|r| r["outcome"] == outcome).count();
        let last = records.last().expect("a record");
        let outcome = if state.is_some() { "installed" } else { "uninstalled" };
        if (of("installed"), of("installing")) != (usize::from(state.is_some()), 0) || last["outcome"] != outcome {
            return Some(format!("the ledger: {records:?}"));
        }
        if let Some(state) = state {
            let values = helm_says(&self.cluster, self.helm, &["get", "values", "shop-web"]);
            if last["version"] != state.version || values["greeting"] != state.greeting {
                return Some(format!("not {} with {}: {values} {last}", state.version, state.greeting));
            }
        }
        let all = &["list", "--all"][..1 + usize::from(self.helm == Helm::V3)];
        let listed = helm_says(&self.cluster, self.helm, all);
        let releases = listed.as_array().expect("releases");
        let names: Vec<&str> = releases.iter().filter_map(|release| release["name"].as_str()).collect();
        if names != state.map_or(&[][..], |state| state.releases) || releases.iter().any(|r| r["status"] != "deployed")
        {
            return Some(format!("Helm: {listed}"));
        }
        let status = self.lab.ask(&self.cluster, self.helm, &["status"]);
        if status.code != Some(0) {
            return Some(format!("status: {}{}", status.stdout, status.stderr));
        }
        let leases = self.cluster.kubectl(["-n", "sealift-system", "get", "leases", "-o", "name"]).ok().stdout;
        let files =
            ["store/tmp", "temporary"].map(|folder| fs::read_dir(self.lab.path(folder)).map_or(0, Iterator::count));
        (!leases.is_empty() || files != [0, 0]).then(|| format!("left: {leases:?}, {files:?} temporary files"))
    }

    /// What is wrong after a scene beyond that.
    fn wrong_after(&self, scene: Scene, said: &str) -> Option<String> {
        match scene {
            Scene::Upgrade => {
                let note = "jsonpath={.spec.versions[0].schema.openAPIV3Schema.properties.spec.properties.note.type}";
                let crd = self.cluster.kubectl(["get", "crd", "orders.shop.example.com", "-o", note]).ok().stdout;
                (crd != "string").then(|| "the CRD is not that of version 2".to_string())
            }
            Scene::Prune => {
                let bundles = fs::read_dir(self.lab.path("store/bundles")).map_or(0, Iterator::count);
                let records = self.records().len();
                ((bundles, records) != (1, 1)).then(|| format!("{bundles} bundles, {records} records are left"))
            }
            Scene::Uninstall => self.unnamed(said),
            _ => None,
        }
    }

    /// Objects in the product's namespace that an uninstallation has not named, and pins that it has left.
    fn unnamed(&self, said: &str) -> Option<String> {
        let kinds = "all,configmaps,secrets,serviceaccounts,persistentvolumeclaims,roles,rolebindings,leases";
        let line = "jsonpath={range .items[*]}{.kind} {.metadata.name}{\"\\n\"}{end}";
        let mut left = Vec::new();
        for _ in 0..60 {
            let listed = self.cluster.kubectl(["-n", NAMESPACE, "get", kinds, "-o", line]).ok().stdout;
            let own = |line: &&str| !["ConfigMap kube-root-ca.crt", "ServiceAccount default"].contains(line);
            let is_named = |name: &str| said.contains(&format!(" {NAMESPACE}/{name}: "));
            // a Job that is named has its pod
            let owner_is_named = |pod: &str| pod.rsplit_once('-').is_some_and(|(job, _)| is_named(job));
            let is_unnamed = |line: &&str| match line.split_once(' ') {
                Some(("Pod", name)) => !is_named(name) && !owner_is_named(name),
                Some((_, name)) => !is_named(name),
                None => true,
            };
            left = listed.lines().filter(own).filter(is_unnamed).map(str::to_string).collect();
            if left.is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(500));
        }
        let pinned = self.cluster.ctr(["images", "ls"]).ok().stdout;
        let pinned = pinned.lines().filter(|l| l.contains("/shop-") && l.contains("io.cri-containerd.pinned=pinned"));
        left.extend(pinned.map(str::to_string));
        (!left.is_empty()).then(|| format!("left without a word: {left:?}\n{said}"))
    }

    /// One killed run, and what makes it good again: what is wrong then.
    fn point(&self, watch: &LedgerWatch, scene: Scene, moment: Moment, undo: bool) -> (Ended, Option<String>) {
        let before = self.records();
        let ended = watch.killed_at(self.command(scene), moment, &self.lab.path("trace"));
        (ended.clone(), self.made_good(scene, undo, &before, &ended))
    }

    fn made_good(&self, scene: Scene, undo: bool, before: &[Value], ended: &Ended) -> Option<String> {
        let alive = survivors(&self.cluster);
        if !alive.is_empty() {
            return Some(format!("still running: {alive:?}"));
        }
        let again = self.again(scene, undo, before);
        let is_through = again.code == Some(18) && scene == Scene::Uninstall;
        if again.code != Some(0) && !is_through {
            return Some(format!("{:?} of {}: {}", again.code, again.command, again.stderr));
        }
        if undo {
            if let Some(text) = self.wrong(scene.undone().as_ref()) {
                return Some(format!("undone: {text}"));
            }
            let forth = run_command(&mut self.command(scene));
            if forth.code != Some(0) {
                return Some(format!("{:?} after it was undone: {}", forth.code, forth.stderr));
            }
        }
        let said = format!("{}\n{}{}", ended.lines.join("\n"), again.stderr, again.stdout);
        self.wrong(scene.state().as_ref()).or_else(|| self.wrong_after(scene, &said))
    }

    /// As if the product had never been here.
    fn clean(&self) {
        let _ = self.cluster.kubectl(["-n", NAMESPACE, "delete", "jobs", "--all", "--ignore-not-found"]).ok();
        let _ = self.cluster.kubectl(["delete", "crd", "orders.shop.example.com", "--ignore-not-found"]).ok();
        let names = self.cluster.ctr(["images", "ls", "-q"]).ok().stdout;
        for name in names.lines().filter(|name| name.contains("/shop-")) {
            let _ = self.cluster.ctr(["images", "rm", name]);
        }
        let _ = fs::remove_file(self.lab.path("store/marks.json"));
    }

    /// The same after a run that was lost.
    fn reset(&self) {
        for release in RELEASES {
            let mut helm = Command::new(sealift_tests::helm(self.helm));
            helm.args(["uninstall", release, "-n", NAMESPACE]).env("KUBECONFIG", self.cluster.kubeconfig());
            let _ = run_command(&mut helm);
        }
        let all = [
            "-n",
            "sealift-system",
            "delete",
            "configmaps,secrets,leases",
            "-l",
            "app.kubernetes.io/managed-by=sealift",
        ];
        let _ = self.cluster.kubectl(all);
        self.clean();
    }
}

/// How the first line begins that stands after the plan.
const AFTER_PLAN: [&str; 3] = ["helm ", "removing ", "will be left: "];

/// The lines that say a step, by their numbers: the end of the plan, and all after it but for an object that is waited
/// for again and again.
fn steps(lines: &[String]) -> Vec<usize> {
    let is_after = |line: &String| AFTER_PLAN.iter().any(|begins| line.starts_with(begins));
    let plan = lines.iter().position(is_after).expect("a step");
    let is_progress = |line: &str| {
        line.split_once(": ").is_some_and(|(object, _)| object.contains('/') && object.split(' ').count() == 2)
    };
    let is_step = |n: &usize| !(is_progress(&lines[*n]) && is_progress(&lines[n - 1]));
    std::iter::once(plan).chain((plan..lines.len()).filter(is_step).map(|n| n + 1)).collect()
}

/// The moments of a scene that are tried, in their order. What is done on the disk is the same with both Helms: each has
/// half of it.
fn moments(scene: Scene, undisturbed: &Ended, draw: &mut Draw, (whole, half): (bool, usize)) -> VecDeque<Moment> {
    let (lines, records, syncs) = (steps(&undisturbed.lines), undisturbed.records, undisturbed.syncs);
    if !whole {
        let kept = match scene {
            // all is done, and not all is said
            Scene::Back => Moment::Record(records - 1),
            Scene::Prune | Scene::Uninstall => Moment::Record(records),
            _ if draw.next() < 500 => Moment::Record(draw.step(records)),
            _ => Moment::Sync(draw.step(syncs)),
        };
        return VecDeque::from([Moment::Line(lines[draw.step(lines.len()) - 1]), kept, draw.time(undisturbed.took)]);
    }
    let said = lines.into_iter().map(Moment::Line).chain((1..=records).map(Moment::Record));
    let mut all: VecDeque<Moment> = said.chain((1..=syncs).filter(|n| n % 2 == half).map(Moment::Sync)).collect();
    all.extend((0..TIMES).map(|_| draw.time(undisturbed.took)));
    all
}

fn sweep(containerd: Containerd, helm: Helm, seed: u64) {
    if !sealift_tests::servers() {
        return;
    }
    let half = usize::from(helm == Helm::V3);
    let whole = std::env::var("SEALIFT_SWEEP").is_ok_and(|text| text == "all");
    let given = std::env::var("SEALIFT_CRASH_SEED").ok().and_then(|text| text.parse::<u64>().ok());
    let mut draw = Draw(given.unwrap_or(1).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(seed));
    let lab = Lab::new();
    let bundles = bundles(&lab);
    lab.trust();
    fs::create_dir(lab.path("temporary")).expect("a folder");
    let world = World { bundles, cluster: Cluster::start("crashes", containerd), helm, lab };

    // undisturbed once, to know the steps
    let mut watch = LedgerWatch::start(&world.cluster);
    let undisturbed = SCENES.map(|scene| {
        let ended = watch.undisturbed(&world.command(scene), &world.lab.path("trace"));
        assert_eq!(ended.code, Some(0), "{scene:?}: {:?}", ended.lines);
        assert_eq!(world.wrong(scene.state().as_ref()), None, "{scene:?}");
        ended
    });
    world.clean();
    let scenes = SCENES.into_iter().zip(&undisturbed);
    let mut queues: Vec<_> = scenes.map(|(scene, ended)| moments(scene, ended, &mut draw, (whole, half))).collect();
    let rounds = if whole { queues.iter().map(VecDeque::len).max().unwrap_or(0) } else { ROUNDS };
    let (mut tallies, mut lost) = ([Tally::default(); SCENES.len()], Vec::new());
    for round in 0..rounds {
        watch = LedgerWatch::start(&world.cluster);
        for (n, scene) in SCENES.into_iter().enumerate() {
            let Some(moment) = queues[n].pop_front() else {
                // every step of it has had its turn
                let _ = run_command(&mut world.command(scene)).ok();
                continue;
            };
            let undo = round % 4 == 2 && scene.undone().is_some();
            let (ended, wrong) = world.point(&watch, scene, moment, undo);
            let (killed, is_lost) = (u64::from(ended.code.is_none()), u64::from(wrong.is_some()));
            tallies[n] += Tally { points: 1, killed, converged: 1 - is_lost, lost: is_lost };
            if let Some(text) = wrong {
                lost.push(format!(
                    "{} in round {round}, killed at {moment:?} ({killed}): {text}\n{ended:?}",
                    scene.title()
                ));
                world.reset();
                break;
            }
        }
        if lost.len() > GIVEN_UP {
            break;
        }
        world.clean();
    }
    let mut sum = Tally::default();
    for ((scene, tally), steps) in SCENES.iter().zip(tallies).zip(&undisturbed) {
        sum += tally;
        if whole {
            let steps = format!("{} lines, {} records, {} syncs", steps.lines.len(), steps.records, steps.syncs);
            figure(&format!("{} with {helm:?} ({steps}): {tally}", scene.title()));
        }
    }
    figure(&format!("{KILLED_RUNS}{helm:?}: {sum}"));
    assert!(lost.is_empty(), "{}", lost.join("\n\n"));
    assert!(sum.killed > sum.points / 2, "most of them must be killed before their end: {sum}");
}
