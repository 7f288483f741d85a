//! `linux.intelRdt` on hardware that has it, and what is said where there is none. What brig writes is tested beside the code,
//! on an imitation of resctrl: nothing but the real one shows up as a mount of that type.

use crate::support::{Test, cases, host, json, suite};
use std::fs;
use std::path::PathBuf;

cases![without_resctrl_nothing_is_made, a_class_of_its_own_lives_as_long_as_the_container, an_existing_class_stays];

/// Where resctrl is mounted.
fn mounted() -> Option<PathBuf> {
    let mounts = crate::payload::mountinfo::own();
    let mount = mounts.iter().find(|m| m["type"] == "resctrl")?;
    mount["target"].as_str().map(PathBuf::from)
}

fn without_resctrl_nothing_is_made(t: &Test) {
    t.only_brig("the others differ in words");
    if mounted().is_some() {
        suite::skip("there is a resctrl here");
    }
    for rdt in [json!({"closID": "gold"}), json!({"l3CacheSchema": "L3:0=f"}), json!({"enableMonitoring": true})] {
        let mut b = t.bundle();
        b.set("/linux/intelRdt", rdt);
        t.create_fails(&b, &["/linux/intelRdt", "resctrl", "mount -t resctrl"]);
    }
    // What is wrong with it is found first, on any host.
    let mut b = t.bundle();
    b.set("/linux/intelRdt", json!({"closID": "../gold", "schemata": ["L3"], "memBwSchema": "L3:0=f"}));
    t.create_fails(&b, &["/linux/intelRdt/closID", "/linux/intelRdt/memBwSchema", "/linux/intelRdt/schemata/0"]);
}

fn root() -> PathBuf {
    mounted().unwrap_or_else(|| suite::skip("no resctrl is mounted: this hardware has none, or the host does not use it"))
}

fn a_class_of_its_own_lives_as_long_as_the_container(t: &Test) {
    let root = root();
    let mut b = t.bundle();
    b.set("/linux/intelRdt", json!({"enableMonitoring": true})).payload(&["sleep"]);
    let c = t.create(&b);
    let tasks = |group: PathBuf| fs::read_to_string(group.join("tasks")).unwrap();
    assert_eq!(tasks(root.join(&c.id)).trim(), c.pid.to_string());
    assert_eq!(tasks(root.join(&c.id).join("mon_groups").join(&c.id)).trim(), c.pid.to_string());
    c.call(&["delete", "--force"]).ok();
    assert!(!fs::exists(root.join(&c.id)).unwrap());
}

fn an_existing_class_stays(t: &Test) {
    let class = root().join(t.id());
    fs::create_dir(&class).unwrap();
    let mut b = t.bundle();
    b.set("/linux/intelRdt", json!({"closID": t.id()})).payload(&["sleep"]);
    let c = t.create(&b);
    assert_eq!(fs::read_to_string(class.join("tasks")).unwrap().trim(), c.pid.to_string());
    c.call(&["delete", "--force"]).ok();
    assert!(fs::exists(&class).unwrap());
    fs::remove_dir(class).unwrap();
    assert_eq!(host::mounts_under(t.dir()), Vec::<String>::new());
}
