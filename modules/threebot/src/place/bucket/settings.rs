//! Which server has a bucket, and whose key signs: from the environment, under the names that other tools use.
//!
//! Takes a few variables and no others: one that a cloud's tool knows and we do not must not turn off signatures
//! or the check of certificates. Never says what a variable holds: it may be a secret under the wrong name.

use super::super::PlaceError;

const KEY_ID: &str = "AWS_ACCESS_KEY_ID";
const SECRET: &str = "AWS_SECRET_ACCESS_KEY";
const TOKEN: &str = "AWS_SESSION_TOKEN";
/// The first that is set counts.
const REGIONS: [&str; 2] = ["AWS_REGION", "AWS_DEFAULT_REGION"];
const SERVERS: [&str; 2] = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"];
const STYLE: &str = "AWS_VIRTUAL_HOSTED_STYLE_REQUEST";
/// What servers that know no regions take.
const REGION: &str = "us-east-1";

/// What signs requests, and where they go.
pub(super) struct Settings {
    pub(super) key_id: String,
    pub(super) secret: String,
    pub(super) token: Option<String>,
    pub(super) region: String,
    /// Without a slash at its end.
    server: String,
    style: Style,
}

/// Where the name of a bucket stands in a URL.
enum Style {
    Path,
    Host,
}

impl Settings {
    /// Variables that are not known here are passed over, and so are empty ones.
    pub(super) fn read(
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, PlaceError> {
        let known = |name: &str| {
            [KEY_ID, SECRET, TOKEN, STYLE]
                .iter()
                .chain(&REGIONS)
                .chain(&SERVERS)
                .any(|n| *n == name)
        };
        let variables: Vec<(String, String)> = variables
            .into_iter()
            .filter(|(name, value)| known(name) && !value.is_empty())
            .collect();
        let find = |wanted: &str| {
            variables.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone())
        };
        // In a header, anything else would be another request.
        let word = |name: &str| match find(name) {
            Some(value) if value.chars().all(|c| c.is_ascii_graphic()) => Ok(Some(value)),
            None => Ok(None),
            Some(_) => Err(PlaceError::Unfit(format!(
                "{name} has a character that no key has: is there a space or a line break in it?"
            ))),
        };
        let (Some(key_id), Some(secret)) = (word(KEY_ID)?, word(SECRET)?) else {
            return Err(PlaceError::Unfit(format!(
                "no key for the bucket: set {KEY_ID} and {SECRET} in the environment (for a profile of the aws \
                 command: `aws configure export-credentials --format env`)"
            )));
        };
        let region = REGIONS.iter().find_map(|name| find(name)).unwrap_or(REGION.to_owned());
        if !region.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
            let text = format!("{} is no name of a region, such as {REGION}", REGIONS[0]);
            return Err(PlaceError::Unfit(text));
        }
        let server = match SERVERS.iter().find_map(|name| find(name).map(|url| (name, url))) {
            None if region.starts_with("cn-") => format!("https://s3.{region}.amazonaws.com.cn"),
            None => format!("https://s3.{region}.amazonaws.com"),
            Some((name, url)) => server(&url).ok_or_else(|| {
                PlaceError::Unfit(format!(
                    "{name} is no address of a server that this build can ask: http[s]://host[:port]"
                ))
            })?,
        };
        let style = match find(STYLE).as_deref() {
            None | Some("false") => Style::Path,
            Some("true") => Style::Host,
            Some(_) => return Err(PlaceError::Unfit(format!("{STYLE} is true or false"))),
        };
        Ok(Self { key_id, secret, token: word(TOKEN)?, region, server, style })
    }

    /// Where the names in a bucket begin, without a slash at its end. The library ends the program at what is no
    /// URL: an address of numbers has no names below it.
    pub(super) fn bucket_url(&self, bucket: &str) -> Result<String, PlaceError> {
        let url = match (&self.style, self.server.split_once("://")) {
            (Style::Host, Some((scheme, host))) => format!("{scheme}://{bucket}.{host}"),
            _ => format!("{}/{bucket}", self.server),
        };
        if reqwest::Url::parse(&url).is_err() {
            return Err(PlaceError::Unfit(format!(
                "{url} is no address of a server: with {STYLE}=true the server needs a name, and a bucket one that \
                 can stand before it"
            )));
        }
        Ok(url)
    }

    /// What nobody may see.
    pub(super) fn secrets(&self) -> impl Iterator<Item = &str> {
        [&self.secret].into_iter().chain(&self.token).chain([&self.key_id]).map(String::as_str)
    }
}

/// Plain http is what somebody has written. No name and no password: they would be shown with each error.
fn server(url: &str) -> Option<String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.:/[]".contains(c);
    registry_api::client::base(url).ok().filter(|url| url.chars().all(is_plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(more: &[(&str, &str)]) -> Result<Settings, String> {
        let key = [(KEY_ID, "ID"), (SECRET, "SECRET/+=")];
        let all = key.iter().chain(more).map(|(name, value)| ((*name).into(), (*value).into()));
        // The last one of a name counts here, so that a test can take back a key.
        let all: std::collections::BTreeMap<String, String> = all.collect();
        Settings::read(all).map_err(|error| error.to_string())
    }

    #[test]
    fn a_server_is_what_the_environment_says() {
        for (more, url) in [
            (&[("AWS_ENDPOINT_URL", "http://127.0.0.1:9000/")][..], "http://127.0.0.1:9000/b"),
            (&[("AWS_ENDPOINT_URL", "http://[::1]:9000")], "http://[::1]:9000/b"),
            (&[("AWS_ENDPOINT_URL", "http://proxy.test/s3")], "http://proxy.test/s3/b"),
            (
                &[("AWS_ENDPOINT_URL", "http://s3.test"), ("AWS_ENDPOINT_URL_S3", "http://x.test")],
                "http://x.test/b",
            ),
            (&[("AWS_ENDPOINT_URL", "http://s3.test"), (STYLE, "true")], "http://b.s3.test"),
        ] {
            assert_eq!(read(more).unwrap().bucket_url("b").unwrap(), url, "{more:?}");
        }
        let amazon = [("AWS_DEFAULT_REGION", "eu-west-3"), ("AWS_ENDPOINT_URL", "")];
        let settings = read(&amazon).unwrap();
        assert_eq!(settings.bucket_url("b").unwrap(), "https://s3.eu-west-3.amazonaws.com/b");
        let china = read(&[("AWS_REGION", "cn-north-1")]).unwrap();
        assert_eq!(china.bucket_url("b").unwrap(), "https://s3.cn-north-1.amazonaws.com.cn/b");
        assert_eq!(read(&[]).unwrap().region, "us-east-1");
        let both = [("AWS_DEFAULT_REGION", "eu-west-3"), ("AWS_REGION", "garage")];
        assert_eq!(read(&both).unwrap().region, "garage");
    }

    #[test]
    fn what_is_no_setting_of_ours_changes_nothing_and_what_is_wrong_is_not_repeated() {
        let others = [("AWS_SKIP_SIGNATURE", "true"), ("AWS_ALLOW_INVALID_CERTIFICATES", "true")];
        let settings = read(&others).unwrap();
        assert_eq!((settings.key_id.as_str(), settings.secret.as_str()), ("ID", "SECRET/+="));
        assert_eq!(settings.token, None);
        assert_eq!(read(&[(TOKEN, "t")]).unwrap().token.as_deref(), Some("t"));
        for (name, value) in [
            (KEY_ID, "hidden\n"),
            (SECRET, "hid den"),
            (TOKEN, "hidden\r\nHost: x"),
            ("AWS_REGION", "hidden/x"),
            ("AWS_ENDPOINT_URL", "hidden"),
            ("AWS_ENDPOINT_URL", "ftp://hidden"),
            ("AWS_ENDPOINT_URL", "http://me:hidden@s3.test"),
            ("AWS_ENDPOINT_URL_S3", "http://s3.test/?x=hidden"),
            (STYLE, "hidden"),
        ] {
            let error = read(&[(name, value)]).err().unwrap();
            assert!(error.contains(name) && !error.contains("hid"), "{value}: {error}");
        }
        for name in [KEY_ID, SECRET] {
            let error = read(&[(name, "")]).err().unwrap();
            assert!(error.contains(KEY_ID) && error.contains(SECRET), "{error}");
            assert!(!error.contains("SECRET/"), "{error}");
        }
    }
}
