package config

import (
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
)

// TestStorage: every key of the storage.
func TestStorage(t *testing.T) {
	c := mustParse(t, recording("storage: eu", "priority: low")+`
stations: [{user: a, recording: {storage: us}}, {user: b}]
station_base: {storage: default}
storage:
  url: "s3://recordings?endpoint=https://s3.example.net&region=x"
  credentials: /etc/trunktap/s3
  lock: {mode: compliance, for: 8760h}
  part_size: 16MiB
  spool: /spool
  spool_max: 80%
  keep_local: 48h
  uploads: 8
  upload_growing: false
  sweep_every: 1h
  on_disk_low: {warn: 50GiB, at: 10%, do: refuse-calls}
  regions:
    eu: {url: "gs://recordings-eu"}
    us: {url: "file:///srv/us"}
    azure: {url: "azblob://calls", lock: {mode: governance, for: 1h}}
`)
	at := func(url, dir string) StoreAt {
		return StoreAt{URL: url, Dir: dir, Lock: ObjectLock{Mode: "none"}, PartSize: 8 << 20}
	}
	azure := at("azblob://calls", "")
	azure.Lock = ObjectLock{"governance", time.Hour}
	want := Storage{
		StoreAt: StoreAt{
			URL: "s3://recordings?endpoint=https://s3.example.net&region=x", Credentials: "/etc/trunktap/s3",
			Lock: ObjectLock{"compliance", 8760 * time.Hour}, PartSize: 16 << 20,
		},
		Spool: "/spool", SpoolMax: Share{Percent: 80}, KeepLocal: 48 * time.Hour, Uploads: 8, SweepEvery: time.Hour,
		OnDiskLow: OnDiskLow{Warn: Share{Bytes: 50 << 30}, At: Share{Percent: 10}, Do: "refuse-calls"},
		Regions: []Region{
			{"eu", at("gs://recordings-eu", "")}, {"us", at("file:///srv/us", "/srv/us")}, {"azure", azure},
		},
	}
	if d := gocmp.Diff(want, c.Storage); d != "" {
		t.Error(d)
	}
	r := c.Trunks[0].Recording
	if r.Storage != "eu" || r.Priority != "low" || c.Stations[0].Recording.Storage != "us" || c.Stations[1].Recording.Storage != "default" {
		t.Errorf("%+v %+v", r, c.Stations)
	}
}

// TestStorageFaults: each names its place and what is allowed.
func TestStorageFaults(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{recording("storage: mars") + "storage: {regions: {eu: {url: \"s3://abc\"}}}\n", `trunks[0].recording.storage: "mars" is no region of storage.regions; allowed: eu or default`},
		{minimal + "station_base: {storage: mars}\n", `station_base.storage: "mars" is no region`},
		{minimal + "storage: {url: \"ftp://x\"}\n", `storage.url: scheme "ftp" is not known`},
		{minimal + "storage: {url: \"s3://\"}\n", `storage.url: "" is no bucket`},
		{minimal + "storage: {url: \"s3://bucket?colour=red\"}\n", `storage.url: no setting "colour" for s3: want one of region,`},
		{minimal + "storage: {url: \"s3://me:secret@bucket\"}\n", `storage.url: the URL holds credentials`},
		{minimal + "storage: {url: \"file://host/x\"}\n", `storage.url: "file://host/x" names the host "host"`},
		{minimal + "storage: {regions: [eu]}\n", `storage.regions: a list where a mapping belongs`},
		{minimal + "storage: {regions: {EU: {url: \"s3://abc\"}}}\n", `storage.regions: "EU" is no name`},
		{minimal + "storage: {regions: {eu: {lock: {mode: none}}}}\n", `storage.regions.eu.url: the key is missing`},
		{minimal + "storage: {regions: {eu: {url: \"s3://abc\"}, us: {url: \"s3://abc\"}}}\n", `storage.regions.us.url: it is, or lies in, that of another store`},
		{minimal + "storage: {regions: {eu: {url: \"file:///var/lib/trunktap/recordings/eu\"}}}\n", `storage.regions.eu.url: it is, or lies in, that of another store`},
		{minimal + "storage: {regions: {default: {url: \"s3://abc\"}}}\n", `the name "default" is that of storage.url`},
		{minimal + "storage: {lock: {mode: governance}}\n", `storage.lock: the lock has no duration`},
		{minimal + "storage: {lock: {for: 1h}}\n", `storage.lock.for: there is no lock to last so long`},
		{minimal + "storage: {lock: {mode: governance, for: 1h}}\n", `storage.lock.mode: a directory has no object lock`},
		{minimal + "storage: {spool_max: 100%}\n", `storage.spool_max: "100%" is neither a size nor a share`},
		{minimal + "storage: {on_disk_low: {at: 0%}}\n", `storage.on_disk_low.at: "0%" is neither a size nor a share`},
		{minimal + "storage: {on_disk_low: {at: 10}}\n", `storage.on_disk_low.at: "10" is neither`},
		{minimal + "storage: {on_disk_low: {do: panic}}\n", `storage.on_disk_low.do: "panic" is not known`},
	} {
		c, faults := Parse("t.yaml", []byte(tt.text))
		if c != nil || !strings.Contains(faults.Error(), tt.want) || !strings.HasPrefix(faults.Error(), "t.yaml:") {
			t.Errorf("%q: %v", tt.text[len(minimal):], faults)
		}
	}
}
