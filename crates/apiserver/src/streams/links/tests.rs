//! Pages and headers, whole and in pieces, plain and compressed.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use http_body_util::BodyExt;
use proptest::prelude::*;

use super::html::TAG_BYTES_MAX;
use super::*;
use crate::body::full;

fn links() -> Links {
    Links::new("/api/v1/namespaces/n/pods/p/proxy/", vec!["10.0.0.1:80".to_owned(), "10.0.0.1".to_owned()])
}

/// The page after rewriting, `P` standing for the proxy's path. Cut anywhere it must come out the same.
fn rewritten(page: &str) -> String {
    let rewrite = |size: usize| {
        let mut rewriter = Rewriter::new(links().in_html());
        let mut out = Vec::new();
        for piece in page.as_bytes().chunks(size) {
            rewriter.push(piece, &mut out);
        }
        rewriter.finish(&mut out);
        String::from_utf8(out).unwrap()
    };
    let whole = rewrite(page.len().max(1));
    assert_eq!(rewrite(1), whole);
    whole.replace("/api/v1/namespaces/n/pods/p/proxy", "P")
}

fn check(page: &str, expect: &str) {
    assert_eq!(rewritten(page), expect);
}

fn untouched(page: &str) {
    check(page, page);
}

#[test]
fn absolute_paths_lead_through_the_proxy() {
    check(r#"<a href="/rewriteme">test</a>"#, r#"<a href="P/rewriteme">test</a>"#);
    check("<A HREF='/x?a=1&amp;b#c'>", "<A HREF='P/x?a=1&amp;b#c'>");
    check("<a class=b href=/x>", "<a class=b href=P/x>");
    check("<img\n src = \"/i.png\" alt=\"/x\"/>", "<img\n src = \"P/i.png\" alt=\"/x\"/>");
    check(r#"<video poster="/p" src="/s">"#, r#"<video poster="P/p" src="P/s">"#);
    check(r#"<a href="//10.0.0.1/x"><a href="http://u@10.0.0.1:80/">"#, r#"<a href="P/x"><a href="P/">"#);
}

#[test]
fn other_urls_and_attributes_stay() {
    for url in
        ["x/y", "", "#x", "?x", "mailto:a@b", "javascript:/x/", "http://other/x", "//other/x", "http://10.0.0.1:81/"]
    {
        untouched(&format!("<a href=\"{url}\">"));
    }
    untouched("<a href='http://10.0.0.1'>");
    untouched(r#"<a title="/x" data-href="/x"><p href="/x"><abbr src="/x">"#);
    untouched("</a href='/x'>");
}

#[test]
fn a_link_through_the_proxy_stays() {
    let proxy = "/api/v1/namespaces/n/pods/p/proxy";
    for rest in ["", "/", "/x", "?q", "#f"] {
        assert_eq!(links().rewrite(format!("{proxy}{rest}").as_bytes()), None);
        let own = links().rewrite(format!("http://10.0.0.1{proxy}{rest}").as_bytes()).unwrap();
        assert_eq!(String::from_utf8(own).unwrap(), format!("{proxy}{rest}"));
    }
    let other = links().rewrite(format!("{proxy}ed").as_bytes()).unwrap();
    assert_eq!(String::from_utf8(other).unwrap(), format!("{proxy}{proxy}ed"));
}

#[test]
fn what_is_no_tag_passes() {
    let tag = "<a href=\"/x\">";
    for (before, after) in [
        ("<!-- ", " -->"),
        ("<!--->", ""),
        ("<!---->", ""),
        ("<!-- -- ", "--!>"),
        ("<script>", "</SCRIPT >"),
        ("<style a='/'>", "</style>"),
        ("<title>", "</titles></title>"),
        ("<textarea>", "<</textarea>"),
    ] {
        let inside = if after.is_empty() { String::new() } else { tag.to_owned() };
        check(&format!("{before}{inside}{after}{tag}"), &format!("{before}{inside}{after}<a href=\"P/x\">"));
    }
    untouched("<!doctype html><?x?></><1 href='/x'>a < b, a<");
    check(&format!("<{tag}"), "<<a href=\"P/x\">");
    check(&format!("<!x>{tag}</?{tag}"), "<!x><a href=\"P/x\"></?<a href=\"/x\">");
    untouched("<a href=\"/x");
}

#[test]
fn quotes_end_where_they_began() {
    check(r#"<a title="a > b" href="/x">"#, r#"<a title="a > b" href="P/x">"#);
    check(r"<a title=it's href=/x>", r"<a title=it's href=P/x>");
    check(r#"<a title='<a href="/y">' href="/x">"#, r#"<a title='<a href="/y">' href="P/x">"#);
    check(r#"<a checked href="/x"title=y><a href="/z">"#, r#"<a checked href="P/x"title=y><a href="P/z">"#);
}

#[test]
fn a_path_cannot_break_out_of_its_attribute() {
    let links = Links::new("/a'b\"c<d>&=`/proxy", Vec::new()).in_html();
    assert_eq!(links.rewrite(b"/x").unwrap(), b"/a&#39;b&#34;c&#60;d&#62;&#38;&#61;&#96;/proxy/x");
}

#[test]
fn an_endless_tag_passes() {
    let long = "x".repeat(TAG_BYTES_MAX);
    check(&format!("<a href=\"/{long}\"><a href=/x>"), &format!("<a href=\"/{long}\"><a href=P/x>"));
    untouched(&format!("<script src=\"/{long}\"><a href=/x>"));
}

fn answer(headers: &[(&str, &str)], body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(body));
    for (name, value) in headers {
        response
            .headers_mut()
            .append(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    lead(response, links())
}

async fn bytes(response: Response<Body>) -> Bytes {
    response.into_body().collect().await.unwrap().to_bytes()
}

const PAGE: &str = "<a href=\"/x\">";
const LED: &str = "<a href=\"/api/v1/namespaces/n/pods/p/proxy/x\">";

#[tokio::test]
async fn only_whole_pages_of_html_change() {
    let html = ("content-type", "text/html; charset=utf-8");
    let led = answer(&[html, ("content-length", "13")], PAGE);
    assert_eq!(led.headers().get(CONTENT_LENGTH), None);
    assert_eq!(bytes(led).await, LED);
    assert_eq!(bytes(answer(&[("content-type", "text/plain")], PAGE)).await, PAGE);
    assert_eq!(bytes(answer(&[], PAGE)).await, PAGE);
    assert_eq!(bytes(answer(&[html, ("content-encoding", "br")], PAGE)).await, PAGE);
    let mut part = Response::new(full(PAGE));
    part.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
    *part.status_mut() = StatusCode::PARTIAL_CONTENT;
    assert_eq!(bytes(lead(part, links())).await, PAGE);
}

#[tokio::test]
async fn a_redirection_leads_through_the_proxy() {
    let to = |url: &str| {
        let led = answer(&[("location", url), ("content-type", "text/html")], PAGE);
        led.headers()[LOCATION].to_str().unwrap().to_owned()
    };
    assert_eq!(to("/x?y"), "/api/v1/namespaces/n/pods/p/proxy/x?y");
    assert_eq!(to("http://10.0.0.1/x/"), "/api/v1/namespaces/n/pods/p/proxy/x/");
    assert_eq!(to("x"), "x");
    assert_eq!(to("https://other/x"), "https://other/x");
    assert_eq!(bytes(answer(&[("location", "/x"), ("content-type", "text/html")], PAGE)).await, PAGE);
}

fn compressed(coding: &str, page: &[u8]) -> Vec<u8> {
    let level = Compression::fast();
    match coding {
        "gzip" => written(GzEncoder::new(Vec::new(), level), page, |w| w.finish()),
        "zlib" => written(ZlibEncoder::new(Vec::new(), level), page, |w| w.finish()),
        _ => written(DeflateEncoder::new(Vec::new(), level), page, |w| w.finish()),
    }
}

fn written<W: Write>(mut writer: W, page: &[u8], finish: impl FnOnce(W) -> std::io::Result<Vec<u8>>) -> Vec<u8> {
    writer.write_all(page).unwrap();
    finish(writer).unwrap()
}

fn plain(coding: &str, bytes: &[u8]) -> String {
    let mut out = String::new();
    match coding {
        "gzip" => MultiGzDecoder::new(bytes).read_to_string(&mut out).unwrap(),
        "zlib" => ZlibDecoder::new(bytes).read_to_string(&mut out).unwrap(),
        _ => DeflateDecoder::new(bytes).read_to_string(&mut out).unwrap(),
    };
    out
}

#[tokio::test]
async fn compressed_pages_change_and_stay_compressed() {
    let many = PAGE.repeat(20_000);
    for coding in ["gzip", "zlib", "raw"] {
        let name = if coding == "gzip" { "gzip" } else { "deflate" };
        let headers = [("content-type", "text/html"), ("content-encoding", name)];
        let led = answer(&headers, compressed(coding, many.as_bytes()));
        assert_eq!(led.headers()[CONTENT_ENCODING], name);
        assert_eq!(plain(coding, &bytes(led).await), LED.repeat(20_000));
        assert_eq!(bytes(answer(&headers, "")).await, "");
        let cut = compressed(coding, many.as_bytes());
        let cut = answer(&headers, cut[..cut.len() / 2].to_vec());
        assert!(cut.into_body().collect().await.is_err(), "{coding}: a page that ends early is an error");
    }
    let headers = [("content-type", "text/html"), ("content-encoding", "gzip")];
    let members = [compressed("gzip", b"<a hr"), compressed("gzip", b"ef=\"/x\">")].concat();
    assert_eq!(plain("gzip", &bytes(answer(&headers, members)).await), LED);
    assert!(answer(&headers, "no gzip").into_body().collect().await.is_err());
}

proptest! {
    /// Whatever comes in, in whatever pieces, comes out whole, but for added proxy paths.
    #[test]
    fn nothing_is_lost(page in "[<>a/!\\-= \"'sx]{0,40}(<a href=\"/x\">|<script>|</script>|<!--|-->){0,4}.{0,20}", size in 1_usize..9) {
        let mut rewriter = Rewriter::new(links().in_html());
        let mut out = Vec::new();
        for piece in page.as_bytes().chunks(size) {
            rewriter.push(piece, &mut out);
        }
        rewriter.finish(&mut out);
        let out = String::from_utf8(out).unwrap();
        prop_assert_eq!(out.replace("/api/v1/namespaces/n/pods/p/proxy", ""), page);
    }
}
