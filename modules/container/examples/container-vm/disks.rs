//! Limits of reading and writing on a disk. No time is known beforehand: a container with a limit is held
//! against one without that does the same beside it.

use crate::{
    checks::up,
    node::{Node, Running, shell},
};
use node_api::{
    launcher::{DiskLimit, Mount, MountSource},
    paths,
};
use rustix::process::Signal;
use std::fs;

/// So slow that 4 MiB take more than eight minutes: much longer than any container here may take.
const BYTES_S: u64 = 8 << 10;
const WRITE: &str = "busybox dd if=/dev/zero of=/data/FILE bs=64k count=64 conv=fsync";
const READ: &str = "busybox dd if=/data/FILE of=/dev/null bs=64k";

pub(crate) fn run(node: &mut Node) {
    shell("mkdir -p /pools/disks");
    let open = DiskLimit {
        device: node.disk.clone(),
        read_bytes_s: None,
        write_bytes_s: None,
        read_ops_s: None,
        write_ops_s: None,
    };
    let writes = DiskLimit { write_bytes_s: Some(BYTES_S), ..open.clone() };
    let reads = DiskLimit { read_bytes_s: Some(BYTES_S), ..open.clone() };
    compare(node, "writes", WRITE, &writes);
    compare(node, "reads", READ, &reads);

    let mut start = node.request(&["sleep", "100"]);
    let all = DiskLimit {
        read_bytes_s: Some(1 << 20),
        write_bytes_s: Some(2 << 20),
        read_ops_s: Some(300),
        write_ops_s: Some(400),
        ..open
    };
    start.limits.disks = vec![all.clone()];
    let running = node.start(&start).expect("a container starts");
    let seen = fs::read_to_string(format!("{}/{}/io.max", paths::CGROUP_WORK, start.id));
    running.signal(Signal::KILL);
    running.wait();
    let wanted = format!("{} rbps=1048576 wbps=2097152 riops=300 wiops=400\n", node.disk);
    let good = seen.as_ref().is_ok_and(|seen| *seen == wanted);
    node.check("each limit of a disk is the kernel's", good, &seen);
    start.limits.disks.push(DiskLimit { device: "4000:0".to_owned(), ..all });
    let refused = node.refusal(&start);
    node.check("a limit on a disk that is not there", refused == "limits_refused", &refused);
}

/// Two containers do the same at the same time, one of them with a limit. It began first, and has not ended
/// when the other has; without its limit it comes to its end as well.
fn compare(node: &mut Node, what: &str, script: &str, limit: &DiskLimit) {
    shell("sync; echo 3 > /proc/sys/vm/drop_caches");
    let start = node.request(&["sh", "-c", "busybox dd if=/dev/zero of=/dev/null count=1"]);
    node.run(&start).expect("what both execute is in memory again");
    let slow = begin(node, &script.replace("FILE", "slow"), std::slice::from_ref(limit));
    let fast = begin(node, &script.replace("FILE", "fast"), &[]).wait();
    let group = format!("{}/{}", paths::CGROUP_WORK, slow.id);
    let events = fs::read_to_string(format!("{group}/cgroup.events")).unwrap_or_default();
    let slower = fast.code == Some(7) && events.contains("populated 1");
    node.check(&format!("what a container {what} is slowed down"), slower, (&fast, &events));
    // Nothing ends that waits for the disk, killed or not.
    let open = format!("{} rbps=max wbps=max", limit.device);
    fs::write(format!("{group}/io.max"), open).expect("it is the group of a container");
    let ended = slow.wait();
    node.check(&format!("what it {what} goes on without"), ended.code == Some(7), &ended);
}

fn begin(node: &mut Node, script: &str, limits: &[DiskLimit]) -> Running {
    let mut start = node.request(&["sh", "-c", &format!("echo up; {script} && exit 7")]);
    let source = MountSource::Directory { path: "/pools/disks".to_owned() };
    start.mounts.push(Mount { path: "/data".to_owned(), source });
    (start.uid, start.gid) = (33, 33);
    start.limits.disks = limits.to_vec();
    let running = node.start(&start).expect("a container starts");
    up(&running);
    running
}
