//! Every parser of outside bytes, as a function that must not panic whatever it is given.
//!
//! Each target says whether the parser took the bytes, so that a test can see that its seeds get
//! through. What must hold of accepted bytes is asserted here. The wrappers for libFuzzer are in
//! `../fuzz_targets`, the seeds and all findings in `../corpus`; `tests/replay.rs` runs them on
//! every stable build.

#![forbid(unsafe_code)]

mod bucket;
mod devices;
mod evidence;
mod files;
mod log;
mod net;
mod node;
mod registry;
mod statements;

pub use bucket::{bucket_error, bucket_listing};
pub use devices::{carried_disk, disk_claim, disk_probe, modules_database, uevent};
pub use evidence::evidence;
pub use files::{docker_import, earlier_import, erofs_image, flist_body, oci_import, tar_import};
pub use log::{
    LOG_ORIGIN, LOG_SIZE, log_answer, log_checkpoint, log_hashes, log_leaf, log_note, log_policy,
    log_proof, log_record, log_request, log_signers, log_tile,
};
pub use net::{
    MAC, dhcp_client, dhcp_message, dhcp6_client, dhcp6_message, router_announcement, sntp_answer,
};
pub use node::{
    boot_options, health_answer, ipc_answer, ipc_frames, line_records, oci_config, page_question,
    redis_answer,
};
pub use registry::registry_answers;
pub use statements::{bundle, envelope, now, release, statement, strict_json, verdict};

/// One target: gives whether the bytes were taken.
pub type Target = fn(&[u8]) -> bool;

/// Every target by its name, which is also that of its wrapper and of its corpus.
pub const TARGETS: &[(&str, Target)] = &[
    ("boot_options", boot_options),
    ("bucket_error", bucket_error),
    ("bucket_listing", bucket_listing),
    ("bundle", bundle),
    ("carried_disk", carried_disk),
    ("dhcp6_client", dhcp6_client),
    ("dhcp6_message", dhcp6_message),
    ("dhcp_client", dhcp_client),
    ("dhcp_message", dhcp_message),
    ("disk_claim", disk_claim),
    ("disk_probe", disk_probe),
    ("docker_import", docker_import),
    ("earlier_import", earlier_import),
    ("envelope", envelope),
    ("erofs_image", erofs_image),
    ("evidence", evidence),
    ("flist_body", flist_body),
    ("health_answer", health_answer),
    ("ipc_answer", ipc_answer),
    ("ipc_frames", ipc_frames),
    ("line_records", line_records),
    ("log_answer", log_answer),
    ("log_note", log_note),
    ("log_policy", log_policy),
    ("log_proof", log_proof),
    ("log_record", log_record),
    ("log_request", log_request),
    ("log_tile", log_tile),
    ("modules_database", modules_database),
    ("oci_config", oci_config),
    ("oci_import", oci_import),
    ("page_question", page_question),
    ("redis_answer", redis_answer),
    ("registry_answers", registry_answers),
    ("release", release),
    ("router_announcement", router_announcement),
    ("sntp_answer", sntp_answer),
    ("statement", statement),
    ("strict_json", strict_json),
    ("tar_import", tar_import),
    ("uevent", uevent),
    ("verdict", verdict),
];
