//! Certificates for tests, valid from 2020 to 2120: an authority, and a server that it vouches for.

use std::sync::Arc;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    },
};

/// The authority, in DER.
const AUTHORITY: &str = "\
    3082013b3081e2a00302010202021001300a06082a8648ce3d040302300c310a300806035504030c0172302017\
    0d3230303130313030303030305a180f32313230303130313030303030305a300c310a300806035504030c0172\
    3059301306072a8648ce3d020106082a8648ce3d03010703420004b0d4429a10fd7e1dcc3721cc4a57035dc93f\
    df4aed6c140ea7c079e9fe48c81497b76d1121c7f5aa3b6826231d08f66592fa234d0091161ba59eefc04e7b32\
    8fa3323030300f0603551d130101ff040530030101ff301d0603551d0e04160414b9dd91dbba603a73b349c057\
    91b11e838c1b379a300a06082a8648ce3d0403020348003045022100872dbd5018d087382b5d235ffc19cbb5dc\
    8a3fb16f8c37156776722fcb281ba0022011e547953e46ad98d0a89a9e29877b76ffd5dc292bc550d4c363e692\
    42191978";
/// The server `logs.example`.
const CERTIFICATE: &str = "\
    308201843082012ba00302010202021002300a06082a8648ce3d040302300c310a300806035504030c01723020\
    170d3230303130313030303030305a180f32313230303130313030303030305a300c310a300806035504030c01\
    733059301306072a8648ce3d020106082a8648ce3d030107034200049e52958d86b5f350ad4158ad6b7c563c2f\
    f405d4690a42690f5fe30b664aa39dd21702e21e0d360199ffb6eabcca82cfc61bd9a88bc33592c051d47fa9f2\
    9972a37b307930170603551d110410300e820c6c6f67732e6578616d706c6530090603551d1304023000301306\
    03551d25040c300a06082b06010505070301301d0603551d0e041604147ede4eb0afaa686c9aca7c6163aac95d\
    561e7b10301f0603551d23041830168014b9dd91dbba603a73b349c05791b11e838c1b379a300a06082a8648ce\
    3d0403020347003044022020cadc76fae95b0c0c1784f66e68c58fdeb840e04641c6df3bb59ea1a7cb2cb30220\
    73c2e01c24df563f0ce3cad3aa72b7a8eb3c0a2ba00c8b5dac16b95993d6f271";
/// Its key, in PKCS 8.
const KEY: &str = "\
    308187020100301306072a8648ce3d020106082a8648ce3d030107046d306b020101042006ef125bef8d887080\
    173b0821898a3b14c38f98e71487eb255ac21939ae18e3a144034200049e52958d86b5f350ad4158ad6b7c563c\
    2ff405d4690a42690f5fe30b664aa39dd21702e21e0d360199ffb6eabcca82cfc61bd9a88bc33592c051d47fa9\
    f29972";

fn certificate(text: &str) -> CertificateDer<'static> {
    CertificateDer::from(hex::decode(text).unwrap())
}

/// Who trusts the authority, and nobody else.
pub(crate) fn roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(certificate(AUTHORITY)).unwrap();
    roots
}

/// What the server speaks.
pub(crate) fn acceptor() -> TlsAcceptor {
    let key = PrivatePkcs8KeyDer::from(hex::decode(KEY).unwrap());
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate(CERTIFICATE)], PrivateKeyDer::Pkcs8(key))
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}
