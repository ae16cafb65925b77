package config

import (
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/trunktap/trunktap/recorder/store/location"
)

// StoreAt is one store.
type StoreAt struct {
	URL         string
	Dir         string // the directory of a file:// URL; else empty
	Credentials string // file; empty: as the tools of the service find them
	Lock        ObjectLock
	PartSize    int64 // bytes
}

// ObjectLock keeps objects from being changed or deleted, by the service itself.
type ObjectLock struct {
	Mode string        // none | governance | compliance
	For  time.Duration // from the time of writing
}

// Region is a store of its own, by name.
type Region struct {
	Name string
	StoreAt
}

// Storage is where recordings lie.
type Storage struct {
	StoreAt          // of recordings that name no region
	Spool   string   // local directory for what is being written
	Regions []Region // in order of the file

	SpoolMax  Share         // of the spool, before recordings give way; zero: none
	KeepLocal time.Duration // how long segments stay here when the store has them
	Uploads   int           // objects on their way at once, a store
	Growing   bool          // long segments go in parts while they are written
	OnDiskLow OnDiskLow

	SweepEvery time.Duration // between two looks for strays; 0: none
}

// OnDiskLow is what is done when little space is free.
type OnDiskLow struct {
	Warn Share // an event
	At   Share // and consequences
	Do   string
}

// Share is an amount of a disk: bytes, or a share of its size.
type Share struct {
	Bytes   int64
	Percent float64
}

// StorageDefault names the store of storage.url where a region's name may stand.
const StorageDefault = "default"

const regionsMax = 100

func storageTable(s *Storage) *node {
	return key("storage", "Where recordings lie. See docs/storage.md and docs/spool.md.", object(append(storeFields(&s.StoreAt, true),
		key("spool", "Local directory of what is being written, and of what waits for the store. Without the key: spool beside the catalogue.", path(&s.Spool)).
			shown("/var/lib/trunktap/spool"),
		key("spool_max", "Beyond so much in the spool recordings get gaps, those of the least priority first. Without the key: as much as the disk takes.",
			share(&s.SpoolMax)).shown("80%"),
		key("keep_local", "How long audio stays in the spool, to be played from there, when the store has it; 0s: it goes at once.",
			duration(&s.KeepLocal, 0, 90*24*time.Hour)).is("0s"),
		key("uploads", "Objects that are on their way to a store at once.", integer(&s.Uploads, 1, 64)).is("4"),
		key("upload_growing", "Segments of more than two part_size go to their store in parts while they are written; false: when they are finished.",
			boolean(&s.Growing)).is("true"),
		key("sweep_every", "How often stores and spool are looked through for what nobody owns and what is missing, for metrics and the log; 0s: never. See trunktap sweep.",
			zeroOr(&s.SweepEvery, time.Minute, 30*24*time.Hour)).is("24h"),
		key("on_disk_low", "What becomes of new recordings when little space is free; the state ends when a fifth more is.", object(
			key("warn", "Less free space than this is told: event storage.low.", share(&s.OnDiskLow.Warn)).is(`"10%"`),
			key("at", "Less free space than this has consequences.", share(&s.OnDiskLow.At)).is(`"2%"`),
			key("do", "stop-new: calls that begin are not recorded, as on_failure says. refuse-calls: they are refused. delete-expired: what may give way by retention.rules is deleted, the oldest first; where nothing may, stop-new.",
				choice(&s.OnDiskLow.Do, []string{"stop-new", "refuse-calls", "delete-expired"}, nil)).is("stop-new"),
		)),
		key("regions", "Further stores by name. A recording whose trunk or station names one lies there and nowhere else.",
			named(&s.Regions, regionsMax, regionTable, func(r *Region, name string) { r.Name = name })).shown("eu"),
	)...)).atStart()
}

func regionTable(r *Region) *node {
	fields := storeFields(&r.StoreAt, false)
	fields[0].must().shown("s3://recordings-eu?region=eu-central-1")
	fields[0].def = ""
	return object(fields...)
}

func storeFields(s *StoreAt, whole bool) []*node {
	u := key("url", "Its URL: file:///directory, s3://bucket, gs://bucket or azblob://container, each with what its service needs as parameters.", storeURL(s))
	if whole {
		u.is("file:///var/lib/trunktap/recordings")
	}
	return []*node{
		u,
		key("credentials", "A file with the credentials for it, of mode 0600. Without the key: what the tools of its service use.", path(&s.Credentials)).
			shown("/etc/trunktap/s3-credentials"),
		key("lock", "Keeps recordings from being changed or deleted, by the service itself (object lock, WORM); the bucket must have been made for it.", object(
			key("mode", "governance: somebody with the right to may shorten it. compliance: nobody may, not even the owner of the account.",
				choice(&s.Lock.Mode, []string{"none", "governance", "compliance"}, nil)).is("none"),
			key("for", "How long, from the time of writing.", duration(&s.Lock.For, 0, 100*366*24*time.Hour)).is("0s"),
		)),
		key("part_size", "Larger objects are uploaded in parts of this size.", size(&s.PartSize, "5MiB", "256MiB")).is("8MiB"),
	}
}

// storeURL is the URL of a store; the directory of a file:// URL goes to Dir.
func storeURL(s *StoreAt) *node {
	const want = "file:///an/absolute/directory, s3://bucket, gs://bucket or azblob://container"
	schema := map[string]any{"type": "string", "pattern": "^(file:///|s3://|gs://|azblob://)."}
	return leaf(&s.URL, want, schema, func(v scalar) (string, *wrong) {
		u, err := url.Parse(v.text)
		switch {
		case v.kind != stringScalar || err != nil || u.Scheme == "":
			return "", wrongf("%v is no URL", v)
		case u.User != nil || u.Query().Has("secret") || u.Query().Has("access_key"):
			return "", wrongf("the URL holds credentials, which belong to a file: credentials")
		case u.Scheme == "file":
			if u.Host != "" {
				return "", wrongf("%v names the host %q, a local path has three slashes", v, u.Host)
			}
			if !filepath.IsAbs(u.Path) || filepath.Clean(u.Path) == "/" || u.RawQuery != "" || u.Fragment != "" || strings.ContainsRune(u.Path, 0) {
				return "", wrongf("%v has no usable path", v)
			}
			s.Dir = filepath.Clean(u.Path)
			return v.text, nil
		case u.Scheme != "s3" && u.Scheme != "gs" && u.Scheme != "azblob":
			return "", wrongf("scheme %q is not known", u.Scheme)
		}
		if _, err := location.Parse(v.text); err != nil {
			return "", wrongf("%s", strings.TrimPrefix(err.Error(), "storage url: "))
		}
		s.Dir = ""
		return v.text, nil
	})
}

var percentShape = regexp.MustCompile(`^[0-9]{1,2}(\.[0-9]{1,2})?%$`)

// share is a size, or a share of a disk.
func share(target *Share) *node {
	const want = "a size such as 50GiB (B, KiB, MiB, GiB, TiB) or a share of the disk such as 10%"
	schema := map[string]any{"type": "string", "pattern": sizeShape.String() + "|" + percentShape.String()}
	return leaf(target, want, schema, func(s scalar) (Share, *wrong) {
		if s.kind == stringScalar && percentShape.MatchString(s.text) {
			p, err := strconv.ParseFloat(strings.TrimSuffix(s.text, "%"), 64)
			if err == nil && p > 0 {
				return Share{Percent: p}, nil
			}
		}
		if v, ok := parseSize(s.text); ok && s.kind == stringScalar && v > 0 {
			return Share{Bytes: v}, nil
		}
		return Share{}, wrongf("%v is neither a size nor a share", s)
	})
}

// regionName names a store that recordings go to.
func regionName(target *string) *node { return name(target) }

// checkStorage demands what stores need, and that regions that are named are there.
func (d *decoder) checkStorage(c *Config) {
	s := &c.Storage
	all := append([]Region{{StoreAt: s.StoreAt}}, s.Regions...)
	for i, r := range all {
		at := "storage"
		if i > 0 {
			at = "storage.regions." + r.Name
		}
		if r.Name == StorageDefault {
			d.faultAt(at, `the name "default" is that of storage.url`, "another name")
		}
		d.checkLock(at, &r.StoreAt)
		for _, o := range all[:i] {
			if r.URL != "" && (r.URL == o.URL || r.Dir != "" && o.Dir != "" && (within(r.Dir, o.Dir) || within(o.Dir, r.Dir))) {
				d.faultAt(at+".url", "it is, or lies in, that of another store", "a place of its own")
			}
		}
		if r.Dir != "" && s.Spool != "" && i > 0 && (within(r.Dir, s.Spool) || within(s.Spool, r.Dir)) {
			d.faultAt(at+".url", "it lies in storage.spool, or that in it", "a path outside it")
		}
	}
	for _, r := range c.recordings() {
		d.checkRegion(c, r.path+".storage", r.Storage)
	}
	d.checkRegion(c, "station_base.storage", c.StationBase.Storage)
	for i := range c.Stations {
		d.checkRegion(c, fmt.Sprintf("stations[%d].recording.storage", i), c.Stations[i].Recording.Storage)
	}
}

func (d *decoder) checkRegion(c *Config, path, name string) {
	if name == "" || name == StorageDefault || slices.ContainsFunc(c.Storage.Regions, func(r Region) bool { return r.Name == name }) {
		return
	}
	var names []string
	for _, r := range c.Storage.Regions {
		names = append(names, r.Name)
	}
	d.faultAt(path, fmt.Sprintf("%q is no region of storage.regions", name), orList(append(names, StorageDefault)))
}

func (d *decoder) checkLock(at string, s *StoreAt) {
	switch {
	case s.Lock.Mode == "none" && s.Lock.For > 0:
		d.faultAt(at+".lock.for", "there is no lock to last so long", "with lock.mode governance or compliance")
	case s.Lock.Mode != "none" && s.Lock.Mode != "" && s.Lock.For == 0:
		d.faultAt(at+".lock", "the lock has no duration", "with lock.for, such as 8760h")
	case s.Lock.Mode != "none" && s.Lock.Mode != "" && s.Dir != "":
		d.faultAt(at+".lock.mode", "a directory has no object lock", "with s3://, gs:// or azblob://")
	}
}
