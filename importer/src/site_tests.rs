//! Finding things in trees like those of real machines.

use super::*;

struct Tree(tempfile::TempDir);

impl Tree {
    fn new(files: &[(&str, &str)]) -> Self {
        let tree = Self(tempfile::tempdir().expect("a directory"));
        for (path, text) in files {
            let path = tree.at(path);
            std::fs::create_dir_all(path.parent().expect("it has one")).expect("made");
            std::fs::write(path, text).expect("written");
        }
        tree
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn find(&self, given: &Given, environment: &Environment) -> Site {
        Site::find(self.0.path(), given, environment, &[])
    }
}

fn environment() -> Environment {
    Environment {
        kubeconfig: Some("/none:/k/two:/k/three".into()),
        home: Some("/root".into()),
        path: Some("/snap/bin:/usr/bin:/bin".into()),
    }
}

fn microk8s() -> Tree {
    Tree::new(&[
        ("var/snap/microk8s/common/run/containerd.sock", ""),
        ("var/snap/microk8s/current/credentials/client.config", ""),
        ("var/snap/microk8s/current/args/certs.d/docker.io/hosts.toml", ""),
        (
            "var/snap/microk8s/current/args/containerd.toml",
            "[plugins.\"io.containerd.grpc.v1.cri\".containerd]\n  snapshotter = \"native\"\n",
        ),
        (
            "var/snap/microk8s/current/args/kube-apiserver",
            "--enable-admission-plugins=EventRateLimit,AlwaysPullImages\n",
        ),
        ("snap/microk8s/current/bin/helm", ""),
        ("snap/microk8s/current/bin/helm3", ""),
        ("snap/microk8s/current/meta/snap.yaml", "name: microk8s\nversion: v1.34.1\n"),
        ("snap/bin/helm3", ""),
        ("usr/bin/helm", ""),
        ("run/containerd/containerd.sock", ""),
        ("k/two", ""),
    ])
}

#[test]
fn finds_microk8s_without_arguments() {
    let tree = microk8s();
    let site = tree.find(&Given::default(), &environment());
    let own = |path: &str| Some(Place { path: tree.at(path), origin: Origin::Distribution });
    assert_eq!(site.distribution, Distribution::MicroK8s);
    assert_eq!(site.distribution_version.as_deref(), Some("v1.34.1"));
    assert_eq!(site.containerd_socket, own("var/snap/microk8s/common/run/containerd.sock"));
    assert_eq!(site.kubeconfig, own("var/snap/microk8s/current/credentials/client.config"));
    assert_eq!(site.certs_d, own("var/snap/microk8s/current/args/certs.d"));
    assert_eq!(site.snapshotter.as_deref(), Some("native"));
    assert_eq!(site.always_pull_images, Some(true));
    let helm: Vec<_> = site.helm.iter().map(|place| place.path.clone()).collect();
    assert_eq!(
        helm,
        [
            tree.at("snap/microk8s/current/bin/helm"),
            tree.at("snap/microk8s/current/bin/helm3"),
            tree.at("usr/bin/helm")
        ]
    );
    assert!(!site.worker_node);
}

#[test]
fn flags_win_and_the_bundles_helm_comes_second() {
    let tree = microk8s();
    let given = Given {
        containerd_socket: Some("/g/sock".into()),
        kubeconfig: Some("/g/config".into()),
        certs_d: Some("/g/certs.d".into()),
        helm: Some("/g/helm".into()),
    };
    let site = Site::find(tree.0.path(), &given, &environment(), &["/b/helm".into()]);
    let path = |place: Option<Place>| place.expect("given").path;
    assert_eq!(path(site.containerd_socket), PathBuf::from("/g/sock"));
    assert_eq!(path(site.kubeconfig), PathBuf::from("/g/config"));
    assert_eq!(path(site.certs_d), PathBuf::from("/g/certs.d"));
    assert_eq!(site.helm[0], Place { path: "/g/helm".into(), origin: Origin::Given });
    assert_eq!(site.helm[1], Place { path: "/b/helm".into(), origin: Origin::Bundle });
    assert_eq!(site.helm[2].origin, Origin::Distribution);
}

#[test]
fn falls_back_to_the_usual_places() {
    let tree = Tree::new(&[
        ("run/containerd/containerd.sock", ""),
        ("etc/containerd/certs.d/x/hosts.toml", ""),
        ("k/three", ""),
        ("root/.kube/config", ""),
        ("bin/helm3", ""),
    ]);
    let site = tree.find(&Given::default(), &environment());
    assert_eq!(site.distribution, Distribution::Other);
    assert_eq!(
        site.containerd_socket,
        Some(Place { path: tree.at("run/containerd/containerd.sock"), origin: Origin::Usual })
    );
    assert_eq!(site.kubeconfig, Some(Place { path: tree.at("k/three"), origin: Origin::Environment }));
    assert_eq!(site.certs_d, Some(Place { path: tree.at("etc/containerd/certs.d"), origin: Origin::Usual }));
    assert_eq!(site.helm, [Place { path: tree.at("bin/helm3"), origin: Origin::Environment }]);
    assert_eq!((site.snapshotter, site.always_pull_images), (None, None));
    let site = tree.find(&Given::default(), &Environment { home: Some("/root".into()), ..Environment::default() });
    assert_eq!(site.kubeconfig, Some(Place { path: tree.at("root/.kube/config"), origin: Origin::Usual }));
}

#[test]
fn finds_nothing_where_nothing_is() {
    let site = Tree::new(&[]).find(&Given::default(), &environment());
    assert_eq!((site.containerd_socket, site.kubeconfig, site.certs_d), (None, None, None));
    assert!(site.helm.is_empty());
}

#[test]
fn reads_the_snapshotter_of_the_cri_section_only() {
    for (toml, expected) in [
        ("[plugins.'io.containerd.cri.v1.images']\nsnapshotter = 'zfs' # why\n", Some("zfs")),
        ("[plugins.\"io.containerd.transfer.v1.local\"]\nsnapshotter = \"native\"\n", None),
        ("[plugins.\"io.containerd.grpc.v1.cri\".containerd]\nsnapshotter = \"${SNAPSHOTTER}\"\n", None),
        ("[plugins.\"io.containerd.grpc.v1.cri\".containerd]\n# snapshotter = \"native\"\n", None),
    ] {
        assert_eq!(snapshotter_in(toml).as_deref(), expected, "{toml}");
    }
}

#[test]
fn space_of_a_path_that_is_not_there_yet() {
    let dir = tempfile::tempdir().expect("a directory");
    let here = space(dir.path()).expect("it is there");
    let there = space(&dir.path().join("a/b/c")).expect("its parent is there");
    assert!(space(Path::new("not/there")).is_ok(), "a relative path has parents too");
    assert!(here.total > 0 && here.free <= here.total);
    assert_eq!(here.total, there.total);
}
