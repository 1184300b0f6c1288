//! `rbac`: the smallest roles that allow to install a bundle, as manifests for an administrator. Changes nothing.

use std::fmt::Write as _;

use sealift_console::{Failure, Output, escape_line};
use serde_json::{Value, json};

use super::StoreArgs;
use super::install::{WishArgs, look};
use super::plan::look_into;
use super::release::Session;

/// Print the smallest Roles, and the ClusterRole if one is needed, that allow to install a bundle
#[derive(Debug, clap::Args)]
pub(crate) struct RbacArgs {
    #[command(flatten)]
    wish: WishArgs,
}

pub(crate) fn run(args: &RbacArgs, store: &StoreArgs, out: &Output) -> Result<(), Failure> {
    let (wish, store) = (&args.wish, store.open()?);
    let session = Session::new(&wish.release, &store, format!("rbac {}", wish.bundle.display()), out)?;
    let (title, name, rbac) = look_into(&wish.bundle, &store, &session, &mut |opened| {
        let manifest = opened.manifest.get();
        let instance = wish.release.instance.as_str();
        let name = match instance {
            "default" => format!("sealift-{}", manifest.product),
            instance => format!("sealift-{}-{instance}", manifest.product),
        };
        let rbac = session.runtime.block_on(async {
            let (facts, wanted) = look(wish, &session, opened).await?;
            session.rbac(&facts, opened, &wanted, &name).await
        })?;
        Ok((format!("{} {}, instance {instance}", manifest.product, manifest.version), name, rbac))
    })?;
    if !rbac.is_whole {
        out.warn(
            "what the charts' own objects need is not in it, for it is the bundle that carries Helm: load the bundle \
             first, or give a Helm with --helm",
        );
    }
    let list = json!({"apiVersion": "v1", "kind": "List", "items": &rbac.manifests});
    out.result(&list, || text(&title, &name, &rbac.manifests));
    Ok(())
}

// Values are written as JSON, which YAML takes.
fn text(title: &str, name: &str, manifests: &[Value]) -> String {
    let word =
        |value: &Value, pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_string();
    let mut text = format!(
        "# What sealift-importer needs to install {}, and to upgrade, roll back and remove it.\n\
         # An administrator applies it, and binds it, to the ServiceAccount \"deployer\" of \"default\" for example:\n",
        escape_line(title)
    );
    let account = "--serviceaccount=default:deployer";
    for manifest in manifests {
        let namespace = escape_line(&word(manifest, "/metadata/namespace"));
        let _ = match word(manifest, "/kind").as_str() {
            "Role" => writeln!(text, "#   kubectl -n {namespace} create rolebinding {name} --role={name} {account}"),
            "ClusterRole" => {
                writeln!(text, "#   kubectl create clusterrolebinding {name} --clusterrole={name} {account}")
            }
            _ => Ok(()),
        };
    }
    for manifest in manifests {
        let (version, kind) = (word(manifest, "/apiVersion"), word(manifest, "/kind"));
        let _ = write!(text, "---\napiVersion: {version}\nkind: {kind}\nmetadata: {}\n", manifest["metadata"]);
        if let Some(rules) = manifest["rules"].as_array() {
            text += "rules:\n";
            for rule in rules {
                let (groups, resources, verbs) = (&rule["apiGroups"], &rule["resources"], &rule["verbs"]);
                let _ = write!(text, "- apiGroups: {groups}\n  resources: {resources}\n  verbs: {verbs}\n");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use sealift_importer::cluster::access::Permissions;
    use sealift_importer::yaml::{YamlLimits, documents};

    use super::*;

    #[test]
    fn the_roles_are_yaml() {
        let mut needed = Permissions::of_release("shop");
        needed.extend(Permissions::of_definitions(false));
        let mut manifests = vec![json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})];
        manifests.extend(needed.roles("sealift-shop"));
        let text = text("shop 1.0.0\n- no: line", "sealift-shop", &manifests);
        assert_eq!(documents(&text, YamlLimits::VALUES).expect("sound"), manifests);
        assert!(text.contains("#   kubectl -n shop create rolebinding sealift-shop --role=sealift-shop"), "{text}");
        assert!(
            text.contains("#   kubectl create clusterrolebinding sealift-shop --clusterrole=sealift-shop"),
            "{text}"
        );
    }
}
