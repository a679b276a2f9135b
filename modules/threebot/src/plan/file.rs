//! The file between `plan`, `sign` and `push`: exact bytes, and the envelope once it is signed.

use super::Plan;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use contract::{
    Envelope, Kind, Signed,
    header::Header,
    merkle, strict,
    workload::{DOCUMENT_BYTES_MAX, Document},
};
use serde::{Deserialize, Serialize};

/// Largest plan file in bytes: what the registry takes, and the base64 around it.
pub const PLAN_MAX: usize = 128 * 1024 * 1024;
/// The format that is written.
const FORMAT: u32 = 1;

/// What a plan file holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanFile {
    format: u32,
    /// The header; signed when somebody has signed it.
    header: Envelope,
    /// In base64, sorted by node id.
    documents: Vec<String>,
}

/// A plan and the envelope of its header, with the signatures that it has so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// What it says.
    pub plan: Plan,
    /// The header as it is pushed.
    pub envelope: Envelope,
}

/// Why bytes are no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanFileError {
    /// Not JSON of the expected form.
    #[error("reading the plan")]
    Read(#[source] strict::ReadError),
    /// Written by another version.
    #[error("the plan has format {0}, which is not known")]
    Format(u32),
    /// The header does not parse or breaks a rule.
    #[error("the plan's header")]
    Header(#[source] contract::envelope::OpenError),
    /// A document does not parse or breaks a rule.
    #[error("document {index} of the plan: {problem}")]
    Document {
        /// Its place, from 0.
        index: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// Somebody changed the file.
    #[error("the plan's documents do not hash into its header")]
    Root,
}

impl Sealed {
    /// A plan that nobody has signed.
    pub fn unsigned(plan: Plan) -> Self {
        let envelope = Envelope {
            payload_type: Kind::Contract.payload_type(),
            payload: BASE64.encode(&plan.payload),
            signatures: Vec::new(),
        };
        Self { plan, envelope }
    }

    /// The bytes of the file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let file = PlanFile {
            format: FORMAT,
            header: self.envelope.clone(),
            documents: self.plan.document_bytes.iter().map(|bytes| BASE64.encode(bytes)).collect(),
        };
        let mut bytes = serde_json::to_vec_pretty(&file).expect("strings always serialise");
        bytes.push(b'\n');
        bytes
    }

    /// Reads a file, and makes sure that header and documents belong together.
    pub fn read(bytes: &[u8]) -> Result<Self, PlanFileError> {
        let file: PlanFile = strict::read(bytes, PLAN_MAX).map_err(PlanFileError::Read)?;
        if file.format != FORMAT {
            return Err(PlanFileError::Format(file.format));
        }
        let signed = Signed::<Header>::open(&file.header).map_err(PlanFileError::Header)?;
        let payload = file.header.payload_bytes().map_err(PlanFileError::Header)?;
        let mut documents = Vec::with_capacity(file.documents.len());
        let mut document_bytes = Vec::with_capacity(file.documents.len());
        for (index, text) in file.documents.iter().enumerate() {
            let (document, bytes) =
                document(text).map_err(|problem| PlanFileError::Document { index, problem })?;
            documents.push(document);
            document_bytes.push(bytes);
        }
        let leaves: Vec<_> = document_bytes.iter().map(|bytes| merkle::leaf(bytes)).collect();
        let header = signed.body;
        if header.deployments.count != leaves.len() as u64
            || header.deployments.root.0 != merkle::root(&leaves)
        {
            return Err(PlanFileError::Root);
        }
        let plan = Plan { header, payload, documents, document_bytes };
        Ok(Self { plan, envelope: file.header })
    }
}

fn document(text: &str) -> Result<(Document, Vec<u8>), String> {
    let bytes = BASE64.decode(text).map_err(|_| "it is not base64")?;
    let document: Document =
        strict::read(&bytes, DOCUMENT_BYTES_MAX).map_err(|error| crate::error::chain(&error))?;
    document.check()?;
    Ok((document, bytes))
}
