// Package location reads the URLs of stores.
package location

import (
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
)

// Location is what a store's URL says.
type Location struct {
	Scheme string // file, s3, gs or azblob
	Dir    string // file: the directory
	Bucket string // else: the bucket or container
	Prefix string // of the names in it, without slashes at its ends; may be empty
	Params map[string]string
}

// prefixBytesMax leaves room for a name: services take keys of 1024 bytes.
const prefixBytesMax = 256

// params are the settings that a URL may carry, by scheme.
var params = map[string][]string{
	"s3":     {"region", "endpoint", "profile", "path_style", "sse", "kms_key", "class", "etag"},
	"gs":     {"endpoint", "kms_key", "class"},
	"azblob": {"account", "endpoint", "scope", "class"},
}

// values are the settings that allow some values alone.
var values = map[string][]string{
	"path_style": {"true", "false"},
	"sse":        {"AES256", "aws:kms", "aws:kms:dsse"},
	"etag":       {"md5", "opaque"},
}

// Parse reads file:///dir, s3://bucket/prefix, gs://bucket/prefix or
// azblob://container/prefix, with settings as a query: see docs/storage.md.
func Parse(raw string) (Location, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return Location{}, fmt.Errorf("storage url: %w", withoutURL(err))
	}
	if u.Scheme == "file" {
		if u.Host != "" && u.Host != "localhost" || !filepath.IsAbs(u.Path) || u.RawQuery != "" {
			return Location{}, fmt.Errorf("storage url %q: want file:///an/absolute/directory", raw)
		}
		if strings.ContainsFunc(u.Path, unicode.IsControl) {
			return Location{}, fmt.Errorf("storage url %q: control characters are not allowed", raw)
		}
		return Location{Scheme: "file", Dir: filepath.Clean(u.Path)}, nil
	}
	allowed, ok := params[u.Scheme]
	switch {
	case !ok:
		return Location{}, fmt.Errorf("storage url: scheme %q: want file, s3, gs or azblob", u.Scheme)
	case u.User != nil:
		return Location{}, fmt.Errorf("storage url: no credentials in it: they go into a file, see storage.credentials")
	case u.Fragment != "" || u.Opaque != "":
		return Location{}, fmt.Errorf("storage url: want %s://bucket/prefix", u.Scheme)
	}
	l := Location{Scheme: u.Scheme, Bucket: u.Host, Prefix: strings.Trim(u.Path, "/"), Params: map[string]string{}}
	if err := checkBucket(l.Bucket); err != nil {
		return Location{}, err
	}
	if err := checkPrefix(l.Prefix); err != nil {
		return Location{}, err
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return Location{}, fmt.Errorf("storage url: its settings cannot be read")
	}
	for k, v := range query {
		if !slices.Contains(allowed, k) {
			return Location{}, fmt.Errorf("storage url: no setting %q for %s: want one of %s", k, u.Scheme, strings.Join(allowed, ", "))
		}
		if len(v) != 1 || v[0] == "" {
			return Location{}, fmt.Errorf("storage url: setting %s: want one value", k)
		}
		l.Params[k] = v[0]
	}
	return l, l.checkParams()
}

// withoutURL leaves out the text of the URL, which may hold what is secret.
func withoutURL(err error) error {
	if u, ok := err.(*url.Error); ok { //nolint:errorlint // url.Parse returns it as it is
		return u.Err
	}
	return err
}

func checkBucket(name string) error {
	if len(name) < 3 || len(name) > 222 {
		return fmt.Errorf("storage url: %q is no bucket: want a name of 3 to 222 characters", name)
	}
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("-._", rune(c)) {
			return fmt.Errorf("storage url: bucket %q: character %q is not allowed", name, c)
		}
	}
	return nil
}

// checkPrefix allows what all services keep as it is.
func checkPrefix(prefix string) error {
	if len(prefix) > prefixBytesMax {
		return fmt.Errorf("storage url: its prefix has %d bytes, at most %d", len(prefix), prefixBytesMax)
	}
	for _, c := range prefix {
		if c < ' ' || c == 0x7f || strings.ContainsRune("\"#%?\\", c) || c == 0xfffd {
			return fmt.Errorf("storage url: prefix %q: character %q is not allowed", prefix, c)
		}
	}
	for p := range strings.SplitSeq(prefix, "/") {
		if prefix != "" && (p == "" || p == "." || p == "..") {
			return fmt.Errorf("storage url: prefix %q: a part is empty, . or .., which none may be", prefix)
		}
	}
	return nil
}

func (l Location) checkParams() error {
	for k, v := range l.Params {
		if want := values[k]; want != nil && !slices.Contains(want, v) {
			return fmt.Errorf("storage url: setting %s %q: want %s", k, v, strings.Join(want, " or "))
		}
	}
	if l.Params["kms_key"] != "" && l.Params["sse"] == "AES256" {
		return fmt.Errorf("storage url: kms_key with sse=AES256: want sse=aws:kms")
	}
	endpoint := l.Params["endpoint"]
	if endpoint == "" {
		return nil
	}
	u, err := url.Parse(endpoint)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("storage url: endpoint: want http:// or https:// with a host, and no credentials in it")
	}
	return nil
}

// String is the location for people: what it holds is no secret.
func (l Location) String() string {
	if l.Scheme == "file" {
		return "file://" + l.Dir
	}
	s := l.Scheme + "://" + l.Bucket
	if l.Prefix != "" {
		s += "/" + l.Prefix
	}
	if e := l.Params["endpoint"]; e != "" {
		s += " at " + e
	}
	return s
}
