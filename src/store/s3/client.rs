//! The library's client, from what was given: addresses, proof of who we are, encryption. What it would decide for itself, such
//! as to send a request again, is off.

use super::super::credentials::{Addressing, Credentials, Proof};
use super::observe::{self, Connector};
use crate::exit::Failure;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::{Certificate, ClientOptions, RetryConfig};
use std::time::Duration;

/// A client of `bucket`, where `prefix` is named in errors only. `connect` is how long it waits for a connection.
///
/// # Errors
/// 78 when credentials or certificates cannot be used.
pub(super) fn client(
    bucket: &str,
    prefix: &str,
    given: &Credentials,
    connect: Duration,
) -> Result<AmazonS3, Failure> {
    let mut options = ClientOptions::new().with_connect_timeout(connect).with_timeout_disabled();
    if let Some(file) = given.ca_bundle() {
        let unusable = |e: &dyn std::fmt::Display| Failure::config(format!("AWS_CA_BUNDLE: {file}: {e}"));
        let pem = std::fs::read(file).map_err(|e| unusable(&e))?;
        for certificate in Certificate::from_pem_bundle(&pem).map_err(|e| unusable(&e))? {
            options = options.with_root_certificate(certificate);
        }
    }
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_region(given.region())
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_disable_tagging(true)
        .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() });
    let by_host = given.addressing(bucket) == Addressing::Host;
    builder = builder.with_virtual_hosted_style_request(by_host);
    if let Some(endpoint) = given.endpoint() {
        let Some((scheme, host)) = endpoint.split_once("://").filter(|(s, _)| ["http", "https"].contains(s))
        else {
            return Err(Failure::config(format!(
                "the store's endpoint `{endpoint}` (AWS_ENDPOINT_URL_S3) should begin with https:// or http://"
            )));
        };
        options = options.with_allow_http(scheme == "http");
        builder = builder.with_endpoint(if by_host {
            format!("{scheme}://{bucket}.{host}")
        } else {
            endpoint.to_owned()
        });
    }
    builder = match given.proof()? {
        Proof::Keys { id, key, token } => {
            let builder = builder.with_access_key_id(id).with_secret_access_key(key.reveal());
            match token {
                Some(token) => builder.with_token(token.reveal()),
                None => builder,
            }
        }
        Proof::WebIdentity { token_file, role } => {
            let builder = builder
                .with_config(AmazonS3ConfigKey::WebIdentityTokenFile, token_file)
                .with_config(AmazonS3ConfigKey::RoleArn, role)
                .with_config(AmazonS3ConfigKey::RoleSessionName, given.session_name());
            match given.sts_endpoint() {
                Some(url) => builder.with_config(AmazonS3ConfigKey::StsEndpoint, url),
                None => builder,
            }
        }
    };
    if let Some((kind, key)) = given.encryption()? {
        builder = set(builder, "aws_server_side_encryption", kind)?;
        if let Some(key) = key {
            builder = set(builder, "aws_sse_kms_key_id", key)?;
        }
    }
    builder
        .with_client_options(options)
        .with_http_connector(Connector { tigris: given.is_tigris() })
        .build()
        .map_err(|e| {
            // Its own text is "builder error"; the cause, such as a system without certificates, is further down.
            Failure::config(format!("the store s3://{bucket}/{prefix}: {}", observe::chain(&e)))
        })
}

/// For keys that the library names only by text.
fn set(builder: AmazonS3Builder, name: &str, value: &str) -> Result<AmazonS3Builder, Failure> {
    let key: AmazonS3ConfigKey =
        name.parse().map_err(|e| Failure::config(format!("the store's setting {name}: {e}")))?;
    Ok(builder.with_config(key, value))
}
