//! What the black-box tests share: machines of the real binary ([`machine`]), where they archive to ([`bucket`]), a client
//! with a ledger ([`ledger`]), PostgREST and its clients ([`rest`]), a real S3 server ([`S3`]) and a proxy that breaks single requests ([`proxy`]).

#![allow(dead_code, reason = "each test target uses its own part of this")]

pub(crate) mod bucket;
pub(crate) mod graphql;
pub(crate) mod ledger;
pub(crate) mod machine;
pub(crate) mod ports;
pub(crate) mod programs;
pub(crate) mod proxy;
pub(crate) mod rest;
mod s3;

#[allow(unused_imports, reason = "each test target uses its own part of this")]
pub(crate) use s3::S3;
