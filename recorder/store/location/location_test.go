package location_test

import (
	"strings"
	"testing"

	"github.com/trunktap/trunktap/recorder/store/location"
)

func TestParse(t *testing.T) {
	for raw, want := range map[string]string{
		"file:///var/lib/x":                        "file:///var/lib/x",
		"file://localhost/var/../x/":               "file:///x",
		"s3://bucket":                              "s3://bucket",
		"s3://bucket/a/b/?region=eu-central-1":     "s3://bucket/a/b",
		"s3://bucket/a%20b":                        "s3://bucket/a b",
		"s3://bucket/a b":                          "s3://bucket/a b",
		"s3://b.c_d-e?endpoint=https://host:9000/": "s3://b.c_d-e at https://host:9000/",
		"gs://bucket/x?kms_key=projects/p/k":       "gs://bucket/x",
		"azblob://container?account=a&class=Cool":  "azblob://container",
	} {
		l, err := location.Parse(raw)
		if err != nil || l.String() != want {
			t.Errorf("%s: %q, %v, want %q", raw, l, err, want)
		}
	}
	for _, raw := range []string{
		"", "/var/lib", "file://", "file://host/x", "file:relative", "file:///x?y=z", "file:///a%00b", "file:///a%0Ab", "http://x/y", "s3:bucket", "s3:///x", "s3://bucket#x", "s3://bucket:80",
		"s3://a:geheim@bucket", "s3://bucket?secret=geheim", "s3://bucket?region=", "s3://bucket?region=a&region=b", "s3://bucket/%00",
		"s3://bucket/a%23b", "s3://bucket/a//b", "s3://bucket?endpoint=host", "s3://bucket?endpoint=http://a:geheim@h", "gs://bucket?sse=AES256", "s3://%zz",
	} {
		if l, err := location.Parse(raw); err == nil || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s: %v, %v", raw, l, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"file:///x", "s3://bucket/a?region=b", "gs://b-c/d", "azblob://c?account=d", "s3://a:b@c", "s3://bucket/%2e%2e/", "file:/0/%00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		l, err := location.Parse(raw)
		if err != nil {
			return
		}
		if strings.HasPrefix(l.Prefix, "/") || strings.HasSuffix(l.Prefix, "/") || strings.Contains(l.Prefix, "//") || strings.ContainsAny(l.String(), "\n\x00") {
			t.Errorf("%q: %+v", raw, l)
		}
	})
}
