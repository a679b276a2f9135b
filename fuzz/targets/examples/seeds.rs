//! Writes the seeds of every target into `fuzz/corpus`: valid inputs, from which changes begin.
//!
//! `cargo run -p fuzz-targets --example seeds`, after a format has changed. Findings stay.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a tool for developers, whose inputs stand here")]

#[path = "../../../modules/flist/tests/common/mod.rs"]
mod common;

use contract::{
    Bundle, Envelope, FlistId, Kind, Release, SigningKey,
    decision::Decision,
    header::Publisher,
    report::State,
    testkit::{World, seal},
    workload::{Sink, Spec},
};
use logd::record;
use node_api::init::Line;
use std::{fs, path::Path};

fn main() {
    statements();
    registry();
    net();
    net6();
    node();
    devices();
    files();
    log();
    earlier();
}

fn put(target: &str, name: &str, bytes: &[u8]) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("corpus");
    let directory = corpus.join(target);
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join(format!("seed-{name}")), bytes).unwrap();
}

fn json<T: serde::Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).unwrap()
}

fn statements() {
    let world = World::new(fuzz_targets::now());
    let header = seal(&world.header(1, None), world.key("owner"));
    let all: [(Kind, Envelope); 11] = [
        (Kind::Identity, world.identity("owner")),
        (Kind::Farm, seal(&world.farm(1), world.key("farm"))),
        (Kind::Adoption, seal(&world.adoption(), &world.token)),
        (Kind::Pool, seal(&world.pool(), world.key("farm"))),
        (Kind::Node, seal(&world.node(1), &world.node_key)),
        (Kind::Contract, header.clone()),
        (Kind::Approval, world.approve("it", &header)),
        (Kind::Cancel, seal(&world.cancel(), world.key("owner"))),
        (Kind::Result, seal(&world.report(1, None, State::Running), &world.node_key)),
        (Kind::Heartbeat, seal(&world.heartbeat("b1", 1, 0), &world.node_key)),
        (Kind::Scrub, seal(&world.scrub(0), world.key("farm"))),
    ];
    for (place, (kind, envelope)) in (0_u8..).zip(&all) {
        put("envelope", kind.name(), &json(envelope));
        let payload = envelope.payload_bytes().unwrap();
        put("statement", kind.name(), &[&[place][..], &payload].concat());
        put("strict_json", kind.name(), &payload);
    }
    let publisher = SigningKey::from_seed(&[42; 32]);
    let release = Release {
        flist: FlistId([9; 32]),
        publisher: publisher.public(),
        name: "web".into(),
        revision: 3,
        not_after: Some(fuzz_targets::now().plus(86_400)),
    };
    put("release", "until", &release.seal(&publisher).unwrap());
    let release = Release { not_after: None, ..release };
    put("release", "for-ever", &release.seal(&publisher).unwrap());
    let mut demanding = world.header(1, None);
    demanding.flists[0].publisher = Some(Publisher { key: publisher.public(), revision: 3 });
    let scrubbed = world.node_scrubbed(2, &world.scrub(0));
    let place = all.iter().position(|(kind, _)| *kind == Kind::Node).unwrap();
    let payload = [&[u8::try_from(place).unwrap()][..], &json(&scrubbed)].concat();
    put("statement", "node-scrubbed", &payload);
    let place = all.iter().position(|(kind, _)| *kind == Kind::Contract).unwrap();
    let payload = [&[u8::try_from(place).unwrap()][..], &json(&demanding)].concat();
    put("statement", "contract-publisher", &payload);
    let mut document = world.document(1);
    put("statement", "document-health", &[&[11][..], &json(&document)].concat());
    for workload in &mut document.workloads {
        if let Spec::Container(container) = &mut workload.spec {
            container.health = None;
            container.logs.clear();
        }
    }
    put("statement", "document", &[&[11][..], &json(&document)].concat());
    for workload in &mut document.workloads {
        if let Spec::Container(container) = &mut workload.spec {
            container.logs = ["syslog://logs.example", "wss://lines.example:8443/in"]
                .map(|to| Sink { to: to.to_owned() })
                .to_vec();
        }
    }
    put("statement", "document-logs", &[&[11][..], &json(&document)].concat());
    for workload in &mut document.workloads {
        if let Spec::Container(container) = &mut workload.spec {
            container.stats = container.logs.split_off(1);
        }
    }
    put("statement", "document-stats", &[&[11][..], &json(&document)].concat());
    put("bundle", "agreed", &json(&world.agreed()));
    put("bundle", "updated", &json(&world.updated(|_| {}, &["it", "legal"])));
    for (first, name) in [(0, "agreed"), (1, "updated"), (2, "half")] {
        put("verdict", name, &[first]);
    }
    // No seeds, for they do not run: rejected, cancelled.
    for (first, name) in [(3, "rejected"), (4, "cancelled")] {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("corpus");
        fs::write(corpus.join("verdict").join(name), [first; 40]).unwrap();
    }
}

fn registry() {
    use registry_api::{Problem, view, write};
    let world = World::new(fuzz_targets::now());
    let bundle: Bundle = world.agreed();
    let inbox = view::Inbox {
        adopted: true,
        contracts: vec![view::InboxEntry {
            contract: world.contract(),
            version: 1,
            etag: "\"0123456789abcdef\"".into(),
        }],
        oversize: vec![world.contract()],
        scrub: Some(view::Ordered {
            order: seal(&world.scrub(0), world.key("farm")),
            farm: world.identity("farm"),
        }),
    };
    put("registry_answers", "inbox", &[&[0][..], &json(&inbox)].concat());
    let problem = Problem::new(409, "Conflict", "too_many", "no more");
    put("registry_answers", "problem", &[&[1][..], &json(&problem)].concat());
    let id = bundle.headers[0].id().unwrap();
    let accepted = write::Accepted { id, kind: Kind::Contract, new: true, complete: true };
    put("registry_answers", "accepted", &[&[2][..], &json(&accepted)].concat());
    let refused =
        write::RefusedResult { index: 1, seq: Some(2), code: "c".into(), detail: "d".into() };
    let results = write::ResultsAnswer { accepted: vec![1], refused: vec![refused] };
    put("registry_answers", "results-answer", &[&[4][..], &json(&results)].concat());
    let decisions = view::Decisions { approvals: bundle.approvals.clone(), next: 2 };
    put("registry_answers", "decisions", &[&[15][..], &json(&decisions)].concat());
    // Its own tests write it.
    let lived = include_str!("../../../modules/threebot/tests/data/evidence-1.json");
    put("evidence", "lived", lived.trim_end().as_bytes());
    let refused = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>SignatureDoesNotMatch</Code><Message>Check \
                   your key.</Message><CanonicalRequest>PUT\n/b/x\n</CanonicalRequest></Error>";
    put("bucket_error", "refused", refused.as_bytes());
    let listing = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult><IsTruncated>true</IsTruncated>\
                   <NextContinuationToken>a/b+=</NextContinuationToken></ListBucketResult>";
    put("bucket_listing", "goes-on", listing.as_bytes());
    let listing = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>";
    put("bucket_listing", "whole", listing.as_bytes());
    put("registry_answers", "heartbeat", b"\x05{\"interval_s\":30}");
    let identity = view::IdentityView {
        id: world.id("owner"),
        name: "owner".into(),
        threshold: 1,
        keys: 1,
        statement: world.identity("owner"),
    };
    put("registry_answers", "identity", &[&[6][..], &json(&identity)].concat());
    let report = world.report(1, None, State::Running);
    let result = view::ResultView {
        id,
        arrival: 1,
        node: report.node,
        boot: report.boot,
        seq: report.seq,
        at: report.at,
        received: report.at,
        contract: report.contract,
        version: report.version,
        workload: report.workload,
        state: report.state,
        code: report.code,
        message: report.message,
        ran: report.ran,
        conflict: false,
    };
    let list = view::Results { results: vec![result.clone()], next: 1 };
    put("registry_answers", "results", &[&[13][..], &json(&list)].concat());
    put("registry_answers", "result", &[&[14][..], &json(&result)].concat());
    let decision = world.decision("it", &bundle.headers[0], Decision::Reject);
    put("strict_json", "reject", &json(&decision));
}

/// A DHCP answer: kind, number of the question, address, options behind the kind.
fn dhcp(kind: u8, number: u32, options: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 240];
    bytes[..3].copy_from_slice(&[2, 1, 6]);
    bytes[4..8].copy_from_slice(&number.to_be_bytes());
    bytes[16..20].copy_from_slice(&[10, 0, 2, 15]);
    bytes[28..34].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    bytes[236..240].copy_from_slice(&[99, 130, 83, 99]);
    bytes.extend([53, 1, kind]);
    bytes.extend_from_slice(options);
    bytes.push(255);
    bytes
}

fn net() {
    const OPTIONS: &[u8] = &[
        54, 4, 10, 0, 2, 2, 51, 4, 0, 0, 3, 32, 1, 4, 255, 255, 255, 0, 3, 4, 10, 0, 2, 2, 6, 8,
        10, 0, 2, 3, 10, 0, 2, 4, 42, 4, 10, 0, 2, 5, 58, 4, 0, 0, 1, 0, 59, 4, 0, 0, 2, 0,
    ];
    let offer = dhcp(2, 1000, OPTIONS);
    put("dhcp_message", "offer", &offer);
    put("dhcp_message", "refusal", &dhcp(6, 1000, &[54, 4, 10, 0, 2, 2]));
    let overload = [&[52, 1, 3][..], OPTIONS].concat();
    put("dhcp_message", "overload", &dhcp(5, 1000, &overload));
    let mut frame = netd::dhcp::frame::encode([2; 6], [10, 0, 2, 2].into(), &offer);
    frame[34..38].copy_from_slice(&[0, 67, 0, 68]);
    put("dhcp_message", "frame", &frame);
    // A timer, an offer, an acknowledgement, a timer.
    put("dhcp_client", "bound", &dhcp_client_seed());
    let mut answer = vec![0; 48];
    answer[..2].copy_from_slice(&[0x24, 2]);
    answer[24..32].copy_from_slice(&7_u64.to_be_bytes());
    let seconds = 1_800_000_100_u64 + 2_208_988_800;
    for at in [32, 40] {
        answer[at..at + 8].copy_from_slice(&(seconds << 32).to_be_bytes());
    }
    put("sntp_answer", "good", &[&7_u64.to_be_bytes()[..], &answer].concat());
}

fn net6() {
    let option = |code: u16, value: &[u8]| {
        let length = u16::try_from(value.len()).unwrap();
        [&code.to_be_bytes()[..], &length.to_be_bytes(), value].concat()
    };
    let mut bytes = vec![2, 0, 0, 77];
    bytes.extend(option(1, &netd::dhcp6::message::duid(fuzz_targets::MAC)));
    bytes.extend(option(2, &[0, 3, 0, 1, 2, 0, 0, 0, 0, 1]));
    let own: std::net::Ipv6Addr = "2001:db8::9".parse().unwrap();
    let times = [0, 0, 0, 50, 0, 0, 0, 80];
    let address = option(5, &[&own.octets()[..], &[0, 0, 0, 100, 0, 0, 0, 100]].concat());
    bytes.extend(option(3, &[&fuzz_targets::MAC[2..], &times, &address].concat()));
    bytes.extend(option(7, &[255]));
    bytes.extend(option(23, &own.octets()));
    bytes.extend(option(56, &option(1, &own.octets())));
    put("dhcp6_message", "offer", &bytes);

    let mut happenings = Vec::new();
    happenings.extend(choose(3, 6));
    happenings.push(0);
    happenings.extend(choose(1, 6));
    for is_reply in [0, 1] {
        happenings.extend(choose(4, 6));
        // No number of its own, server, success, the best preference, an address.
        happenings.extend([is_reply, 0, 1, 0, 255, 1]);
        happenings.extend(u128::from(own).to_le_bytes());
        for seconds in [500_u32, 800, 1000] {
            happenings.extend(seconds.to_le_bytes());
        }
        happenings.push(0);
    }
    happenings.extend(choose(1, 6));
    put("dhcp6_client", "bound", &happenings);

    let units = 3;
    let mut body = vec![10, 0, units * 8, 0, 3, 0, 0, 0, 134, 0, 0, 0, 0, 0, 0, 0, 25, units, 0, 0];
    body.extend(600_u32.to_be_bytes());
    body.extend(own.octets());
    let length = u32::try_from(16 + body.len()).unwrap();
    let mut datagram = length.to_ne_bytes().to_vec();
    datagram.extend(68_u16.to_ne_bytes());
    datagram.resize(16, 0);
    datagram.extend(body);
    put("router_announcement", "one", &[&[1][..], &datagram].concat());
}

/// One of so many variants as `arbitrary` reads it: by the upper part of four bytes.
fn choose(which: u64, of: u64) -> [u8; 4] {
    u32::try_from((which << 32) / of + 1000).unwrap().to_le_bytes()
}

fn dhcp_client_seed() -> Vec<u8> {
    let choose = |which| choose(which, 5);
    let mut bytes = Vec::new();
    bytes.extend(choose(1));
    for kind in [0, 1] {
        bytes.extend(choose(3));
        // Kind, no number of its own, address, prefix, server, lease, no renewal times.
        bytes.extend([kind, 0]);
        bytes.extend(u32::from_be_bytes([10, 0, 2, 15]).to_le_bytes());
        bytes.extend([1, 24, 1, 2, 1]);
        bytes.extend(800_u32.to_le_bytes());
        bytes.extend([0, 0]);
    }
    bytes.extend(choose(1));
    bytes
}

fn node() {
    let digits = "0123456789abcdef".repeat(4);
    let options = format!(
        "console=ttyS0 zos.network=test zos.farm={digits} zos.token={digits} \
         zos.registry=http://10.0.2.2:8000,https://registry.test zos.ip=10.0.2.15/24,10.0.2.2 \
         zos.dns=10.0.2.3 zos.ntp=10.0.2.4,ntp.test zos.takeover=SERIAL zos.bench=poweroff"
    );
    put("boot_options", "all", options.as_bytes());
    put("boot_options", "metrics", b"zos.metrics=9100,10.0.0.0/8,fd00::1");
    put("boot_options", "ipv6", b"zos.ip=fd00::1/64,fd00::2 zos.dns=fd00::3");
    put("health_answer", "good", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    put("health_answer", "other", b"HTTP/1.0 503 \r\n");
    put("redis_answer", "taken", b":12\r\n:0\r\n");
    put("redis_answer", "refused", b"-NOAUTH Authentication required.\r\n");
    let page = b"GET /metrics HTTP/1.1\r\nHost: node:9100\r\nAccept: text/plain\r\n\r\n";
    put("page_question", "page", page);
    put("page_question", "missing", b"GET /?a HTTP/1.0\r\n\r\n");
    put("page_question", "other", b"POST /metrics HTTP/1.1\r\n\r\n");
    put("line_records", "lines", &line_records());
    let call = |method: &str, parameters: &str| {
        format!("{{\"method\":\"io.zeroos.{method}\",\"parameters\":{parameters}}}\0")
    };
    let power = call("init.Power", r#"{"action":"reboot"}"#);
    let volume = call("storaged.VolumeDelete", r#"{"id":"v-1","order":"x"}"#);
    put("ipc_frames", "power", format!("\x10{power}").as_bytes());
    put("ipc_frames", "two", format!("\x03{power}{volume}").as_bytes());
    put("ipc_answer", "disks", b"{\"parameters\":{\"disks\":[]}}\0");
}

fn devices() {
    let added = b"add@/devices/virtio1\0ACTION=add\0SUBSYSTEM=virtio\0\
        MODALIAS=virtio:d00000001v00001AF4\0SEQNUM=1204\0";
    put("uevent", "driver", added);
    put("uevent", "disk", b"add@/devices/x/block/vdb\0ACTION=add\0SUBSYSTEM=block\0DEVTYPE=disk\0");
    let modules = "\
kernel/lib/libcrc32c.ko.xz:
kernel/crypto/crc32c_generic.ko.xz:
kernel/fs/btrfs/btrfs.ko.xz: kernel/lib/libcrc32c.ko.xz
kernel/drivers/block/virtio_blk.ko.xz:
-
alias fs-btrfs btrfs
alias virtio:d00000002v* virtio_blk
alias crypto-crc32c crc32c_generic
alias usb:v0B95p772[0-9A-F]d*dc*dsc*dp*ic*isc*ip*in* asix
-
softdep btrfs pre: crypto-crc32c
softdep virtio_blk post: btrfs
-
fs-btrfs
virtio:d00000002v00001AF4
usb:v0B95p772Ad0001dc00dsc00dp00ic00isc00ip00in00";
    put("modules_database", "debian", modules.as_bytes());
    let record = |phase: &str| {
        format!(
            "{{\"generation\":7,\"phase\":\"{phase}\",\"takeover\":false,\"class\":\"hdd\",\
             \"pool\":\"ffffffff-ffff-4fff-bfff-ffffffffffff\",\"size_bytes\":1073742336,\
             \"serial\":\"S\"}}"
        )
    };
    put("disk_claim", "making", record("making").as_bytes());
    put("disk_claim", "made", record("made").as_bytes());
    // Unstructured: a place in the first sector, then bytes.
    let piece = |bytes: &[u8]| {
        let mut input = vec![0; 8];
        for byte in bytes {
            input.extend([1, *byte]);
        }
        input.extend([0; 8]);
        input
    };
    put("disk_probe", "xfs", &piece(b"XFSB"));
    put("disk_probe", "luks", &piece(b"LUKS\xba\xbe"));
    carried();
}

/// A stick as a whole, and in a partition. Zeros at the end are left out.
fn carried() {
    use std::io::{Cursor, Write as _};
    let mut disk = Cursor::new(vec![0; 128 << 10]);
    let options = fatfs::FormatVolumeOptions::new().bytes_per_cluster(512).max_root_dir_entries(16);
    fatfs::format_volume(&mut disk, options).unwrap();
    {
        let system = fatfs::FileSystem::new(&mut disk, fatfs::FsOptions::new()).unwrap();
        let root = system.root_dir().create_dir("zos-carry").unwrap();
        let log = root.create_dir("log").unwrap();
        log.create_file("checkpoint").unwrap().write_all(&[b'c'; 1500]).unwrap();
        let nodes = root.create_dir("nodes").unwrap().create_dir("0123456789abcdef").unwrap();
        nodes.create_file("contract").unwrap().write_all(b"{}").unwrap();
    }
    let whole = disk.into_inner();
    let mut parted = vec![0; 4096];
    parted[446 + 4] = 0x0c;
    parted[446 + 8] = 8;
    parted[446 + 13] = 1;
    parted[510..512].copy_from_slice(&[0x55, 0xaa]);
    parted.extend(&whole);
    for (name, disk) in [("whole", whole), ("partition", parted)] {
        let used = disk.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        put("carried_disk", name, &disk[..used]);
    }
}

fn files() {
    use flist::body::{Body, Chunk, Content, Data, Entry, FORMAT, MAGIC, Meta, Node, Pack, Run};
    let meta = |mode| Meta { mode, mtime: 1_700_000_000, ..Meta::default() };
    let entry = |path: &str, node| Entry { path: path.into(), node };
    let body = Body {
        magic: MAGIC,
        format: FORMAT,
        run: Run { entrypoint: vec!["/bin/app".into()], cwd: "/srv".into(), ..Run::default() },
        packs: vec![Pack { id: [1; 32], size: 1000 }],
        contents: vec![Content {
            digest: [3; 32],
            size: 65,
            chunks: vec![Chunk { id: [9; 32], pack: 0, offset: 0, packed: 60 }],
        }],
        entries: vec![
            entry("", Node::Directory(meta(0o755))),
            entry("bin", Node::Directory(meta(0o755))),
            entry("bin/app", Node::File(meta(0o755), Data::Content(0))),
            entry("bin/app2", Node::Link(2)),
            entry("bin/link", Node::Symlink(meta(0o777), b"app".to_vec())),
            entry("small", Node::File(meta(0o644), Data::Inline(b"hello".to_vec()))),
        ],
    };
    put("flist_body", "small", &flist::Flist::from_body(body).unwrap().encode());
    put("erofs_image", "root", &[0; 16]);
    let tar = tar();
    put("tar_import", "small", &tar);
    let index = br#"{"manifests":[{"mediaType":"","digest":"@manifest","size":@manifest-size}]}"#;
    let manifest = br#"{"config":{"digest":"@config","size":@config-size},
        "layers":[{"digest":"@layer","size":@layer-size}]}"#;
    let config = br#"{"config":{"User":"0","Env":["PATH=/bin"],"Entrypoint":["/bin/app"],
        "Cmd":["x"],"WorkingDir":"/"},"rootfs":{"diff_ids":["@layer"]}}"#;
    let cut = &b"\n%%\n"[..];
    put("oci_import", "small", &[&index[..], cut, manifest, cut, config, cut, &tar].concat());
    let manifest = br#"[{"Config":"@config","RepoTags":["app:1"],"Layers":["@layer"]}]"#;
    put("docker_import", "small", &[&manifest[..], cut, config, cut, &tar].concat());
}

/// One of each, with a file of one block.
fn earlier() {
    use common::earlier::{Node, rfs, rfs_block, zflist_block, zflist_entries, zflist_tar};
    let plain = vec![b'x'; 100];
    let tree = [
        ("bin", Node::Directory(0o755)),
        ("bin/app", Node::File(0o755, plain.clone())),
        ("bin/sh", Node::Symlink("app".into())),
        ("empty", Node::File(0o644, Vec::new())),
        ("socket", Node::Socket),
    ];
    let cut = &b"\n%%\n"[..];
    let at = tempfile::tempdir().unwrap();
    let file = at.path().join("app.fl");
    rfs(&file, at.path(), &tree).close().unwrap();
    let database = fs::read(&file).unwrap();
    put("earlier_import", "fl", &[&database, cut, &rfs_block(&plain).2].concat());
    let archive = zflist_tar(&zflist_entries(at.path(), &tree));
    put("earlier_import", "flist", &[&archive, cut, &zflist_block(&plain).2].concat());
}

fn tar() -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut add = |name: &str, kind: tar::EntryType, target: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        header.set_size(bytes.len() as u64);
        if target.is_empty() {
            archive.append_data(&mut header, name, bytes).unwrap();
        } else {
            archive.append_link(&mut header, name, target).unwrap();
        }
    };
    add("bin/", tar::EntryType::Directory, "", b"");
    add("bin/app", tar::EntryType::Regular, "", &[b'x'; 100]);
    add("bin/app2", tar::EntryType::Link, "bin/app", b"");
    add("lib", tar::EntryType::Symlink, "usr/lib", b"");
    add(&"long/".repeat(25), tar::EntryType::Directory, "", b"");
    archive.into_inner().unwrap()
}

fn log() {
    use fuzz_targets::{LOG_SIZE, log_checkpoint, log_hashes, log_leaf, log_signers};
    use tlog::{Bundle, Proof, tree, witness::AddCheckpoint};
    let note = log_checkpoint(LOG_SIZE);
    put("log_note", "checkpoint", note.to_string().as_bytes());
    for signer in log_signers() {
        let key = signer.verifier();
        put("log_note", &format!("key-{}", key.algorithm() as u8), key.to_string().as_bytes());
    }
    let request = AddCheckpoint {
        old: 3,
        proof: log_hashes(tree::consistency(3, LOG_SIZE).unwrap()),
        checkpoint: note.text().parse().unwrap(),
        note: note.clone(),
    };
    put("log_request", "grown", request.to_string().as_bytes());
    let first = AddCheckpoint { old: 0, proof: vec![], ..request };
    put("log_request", "first", first.to_string().as_bytes());
    let [key, witness] = log_signers().map(|signer| signer.verifier().to_string());
    let line = note.lines().last().unwrap().to_string();
    put("log_answer", "cosignature", line.as_bytes());
    put("log_answer", "size", b"5\n");
    let policy = format!(
        "# One of one.\nlog {key} https://log.example\nwitness w {witness} http://w.example\n\
         group g any w\nquorum g\n"
    );
    put("log_policy", "group", policy.as_bytes());
    put("log_policy", "none", format!("log {key}\nquorum none\n").as_bytes());
    let path = log_hashes(tree::inclusion(5, LOG_SIZE).unwrap());
    let proof = Proof { extra: None, index: 5, path, note };
    put("log_proof", "plain", proof.to_string().as_bytes());
    let extra = Proof { extra: Some(b"anything".to_vec()), ..proof };
    put("log_proof", "extra", extra.to_string().as_bytes());
    let world = World::new(fuzz_targets::now());
    let record = tlog::Record::of(&world.identity("owner")).unwrap();
    put("log_record", "identity", &record.write());
    put("log_tile", "path", b"tile/0/x001/x234/067");
    put("log_tile", "partial", b"tile/entries/000.p/7");
    let mut bundle = vec![1];
    Bundle::push(&mut bundle, &log_leaf(0)).unwrap();
    Bundle::push(&mut bundle, b"").unwrap();
    put("log_tile", "bundle", &bundle);
}

/// Three lines, one of which stands for others, and half a fourth.
fn line_records() -> Vec<u8> {
    let mut bytes = record::encode_header(record::Header { life: 7, offset: 40 }).to_vec();
    for (number, n_dropped, text) in
        [(41, 0, "one"), (61, 20, "[20 lines dropped]"), (62, 0, "Käse"), (63, 0, "torn")]
    {
        let line = Line { number, time_ms: 1_700_000_000_000, n_dropped, text: text.to_owned() };
        record::encode(&line, &mut bytes);
    }
    bytes.truncate(bytes.len() - 2);
    bytes
}
