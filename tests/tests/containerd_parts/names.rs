//! Names of images: whose they are, where they point, and when they go.

use std::time::Duration;

use sealift_importer::images::containerd::{ContainerdError, LoadOptions, NameOutcome, Removal, TagPolicy};

use crate::common::layout;
use crate::site::{CRI, Site, app, options};

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_stands_for_another_image_is_kept_or_moved_and_restored() {
    let Some(site) = Site::new("tags") else {
        return;
    };
    let name = "docker.io/acme/app:1";
    let (old, new) = (site.path("old"), site.path("new"));
    let first = app(&site, name, 1).build(&old).expect("build");
    let second = app(&site, name, 2).build(&new).expect("build");
    // as somebody else would have brought it: by tag only, and without labels
    site.load(layout(&old), &options("acme/shop")).await.expect("load");
    site.ctr(&["images", "label", name, "dev.sealift/product=", "io.cri-containerd.pinned="]);
    site.ctr(&["images", "rm", "--sync", &first.by_digest()]);

    let containerd = site.connect().await;
    let images = layout(&new).images();
    let survey = containerd.survey(&images, &options("acme/crm")).await.expect("survey");
    let state = &survey.images[0].names[0];
    assert!(state.is_elsewhere(&images[0].top.digest) && state.owners.is_empty() && !state.pinned);

    for was_there in [false, true] {
        let report = site.load(layout(&new), &options("acme/crm")).await.expect("load");
        let outcome = &report.images[0].names[0].outcome;
        assert!(matches!(outcome, NameOutcome::Kept { found } if found == state), "{outcome:?}");
        assert_eq!(report.images[0].was_there, was_there);
    }
    assert_eq!(site.run(name, "c1", &["cat", "/etc/app"]), "seed 1\n");
    assert_eq!(site.run(&second.by_digest(), "c2", &["cat", "/etc/app"]), "seed 2\n");

    // one that may take its own only is refused before anything is sent, and takes its own
    let own = |owner| LoadOptions { tags: TagPolicy::Own, ..options(owner) };
    let before = site.ctr(&["images", "ls"]);
    let refused = site.load(layout(&new), &own("acme/web")).await.expect_err("the tag is nobody's");
    assert!(matches!(&refused, ContainerdError::ForeignTag { tags, .. } if tags == name), "{refused:?}");
    assert_eq!(site.ctr(&["images", "ls"]), before);

    let moving = LoadOptions { tags: TagPolicy::Move, ..options("acme/crm") };
    let report = site.load(layout(&new), &moving).await.expect("load");
    let NameOutcome::Moved { from } = &report.images[0].names[0].outcome else { panic!("{report:?}") };
    assert_eq!(from, state);
    assert_eq!(site.run(name, "c3", &["cat", "/etc/app"]), "seed 2\n");

    let back = site.load(layout(&old), &own("acme/crm")).await.expect("load");
    assert!(matches!(back.images[0].names[0].outcome, NameOutcome::Moved { .. }), "{back:?}");
    containerd.restore(from).await.expect("restore");
    assert_eq!(containerd.name(name).await.expect("name"), *from);
    site.ctr(&["images", "rm", "--sync", &second.by_digest()]);
    assert_eq!(site.run(name, "c4", &["cat", "/etc/app"]), "seed 1\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_go_when_their_last_owner_removes_them() {
    let Some(site) = Site::new("remove") else {
        return;
    };
    let path = site.path("layout");
    let built = app(&site, "docker.io/acme/app:1", 1).build(&path).expect("build");
    for owner in ["acme/shop", "acme/crm"] {
        site.load(layout(&path), &options(owner)).await.expect("load");
    }
    let containerd = site.connect().await;
    let names = [built.name.clone(), built.by_digest(), "docker.io/acme/none:1".to_string()];
    let removed = |done: Vec<(String, Removal)>| done.into_iter().map(|(_, r)| r).collect::<Vec<_>>();

    let done = removed(containerd.remove(&names, "acme/web").await.expect("remove"));
    assert!(matches!(&done[0], Removal::Foreign { owners } if owners.len() == 2), "{done:?}");
    let unpinned = containerd.unpin(&names, "acme/shop").await.expect("unpin");
    assert!(unpinned.is_empty(), "the other product needs the pin");

    let done = removed(containerd.remove(&names, "acme/shop").await.expect("remove"));
    let shared = Removal::Shared { owners: vec!["acme/crm".to_string()] };
    assert_eq!(done, [shared.clone(), shared, Removal::Absent]);
    assert_eq!(site.run(&built.name, "c", &["cat", "/etc/app"]), "seed 1\n");

    assert_eq!(containerd.unpin(&names, "acme/crm").await.expect("unpin"), names[..2]);
    let state = containerd.name(&built.name).await.expect("name");
    assert!(!state.pinned && state.owners == ["acme/crm"]);
    let done = removed(containerd.remove(&names, "acme/crm").await.expect("remove"));
    assert_eq!(done, [Removal::Removed, Removal::Removed, Removal::Absent]);
    assert_eq!(site.ctr(&["images", "ls", "-q"]), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_name_that_the_kubelets_side_adds_goes_with_the_last_of_ours() {
    let Some(mut site) = Site::new("cri") else {
        return;
    };
    let name = format!("docker.io/acme/{}:1", site.namespace);
    let path = site.path("layout");
    let built = app(&site, &name, 1).build(&path).expect("build");
    site.namespace = CRI.to_string();
    site.load(layout(&path), &options("acme/shop")).await.expect("load");
    let containerd = site.connect().await;
    let mut state = containerd.name(&built.config).await.expect("name");
    for _ in 0..50 {
        if state.target.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        state = containerd.name(&built.config).await.expect("name");
    }
    assert!(state.target.is_some(), "the CRI plugin does not run");
    let done = containerd.remove(&[name.clone(), built.by_digest()], "acme/shop").await.expect("remove");
    assert!(done.iter().all(|(_, removal)| *removal == Removal::Removed), "{done:?}");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(containerd.name(&built.config).await.expect("name").target, None);
    let layer = &built.layers[1].digest;
    assert!(!site.ctr(&["content", "ls", "-q"]).contains(layer.as_str()));
}
