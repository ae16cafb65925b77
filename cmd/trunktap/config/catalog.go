package config

import (
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// Catalog is where the list of recordings lies.
type Catalog struct {
	URL  string
	Path string // the file of a sqlite:// URL; else empty

	PasswordFile string        // of postgres://; empty: as its tools find it
	ConnsMax     int           // connections at once
	Timeout      time.Duration // of a statement of postgres://
	Country      string        // country code of national numbers; empty: they stay as they are
	Node         string        // name of this node in what it records; empty: the host's
}

func catalogTable(c *Catalog) *node {
	return key("catalog", "Where the list of recordings lies. It can be rebuilt from the storage. See docs/search.md.", object(
		key("url", "Its URL: a file of SQLite, or a database of PostgreSQL, which several nodes may share.", catalogURL(c)).
			is("sqlite:///var/lib/trunktap/catalog.db"),
		key("password_file", "One line, the password of postgres://. Without the key: that of PGPASSFILE.", path(&c.PasswordFile)).
			shown("/etc/trunktap/catalog-password"),
		key("conns_max", "Connections at once.", integer(&c.ConnsMax, 2, 100)).is("4"),
		key("timeout", "After it a statement of postgres:// is given up.", duration(&c.Timeout, 100*time.Millisecond, time.Minute)).is("5s"),
		key("country", "Country code of numbers that are written with one leading 0, so that 030 1234 is found as +49 30 1234.",
			leaf(&c.Country, "one to three digits, such as 49", map[string]any{"type": "string", "pattern": "^[1-9][0-9]{0,2}$"}, countryOf)).shown(`"49"`),
		key("node", "Name of this node in what it records. Without the key: the host's.",
			leaf(&c.Node, "up to 63 letters, digits, dots and hyphens", map[string]any{"type": "string", "pattern": nodeName.String()}, nodeOf)).shown("recorder-1"),
	)).atStart()
}

var (
	country  = regexp.MustCompile(`^[1-9][0-9]{0,2}$`)
	nodeName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.-]{0,62}$`)
)

func countryOf(s scalar) (string, *wrong) {
	if !country.MatchString(s.text) {
		return "", wrongf("%v is no country code", s)
	}
	return s.text, nil
}

func nodeOf(s scalar) (string, *wrong) {
	if s.kind != stringScalar || !nodeName.MatchString(s.text) {
		return "", wrongf("%v is no name of a node", s)
	}
	return s.text, nil
}

// catalogURL is a file of SQLite or a database of PostgreSQL. It shows no
// password in its faults.
func catalogURL(c *Catalog) *node {
	schema := map[string]any{"type": "string", "pattern": "^(sqlite:///.|postgres(ql)?://)"}
	return leaf(&c.URL, "sqlite:// and an absolute path, such as sqlite:///var/lib/trunktap/catalog.db, or postgres://user@host/database", schema, func(s scalar) (string, *wrong) {
		u, err := url.Parse(s.text)
		switch {
		case s.kind != stringScalar || err != nil || u.Scheme == "":
			return "", wrongf("it is no URL")
		case u.Scheme == "postgres" || u.Scheme == "postgresql":
			if strings.Trim(u.Path, "/") == "" || u.Fragment != "" {
				return "", wrongf("%q names no database", u.Redacted())
			}
			c.Path = ""
			return s.text, nil
		case u.Scheme != "sqlite":
			return "", wrongf("scheme %q is not known", u.Scheme)
		case u.Host != "":
			return "", wrongf("%v names the host %q, a local path has three slashes", s, u.Host)
		case !filepath.IsAbs(u.Path) || filepath.Clean(u.Path) == "/" || u.RawQuery != "" || u.Fragment != "" || strings.ContainsRune(u.Path, 0):
			return "", wrongf("%v has no usable path", s)
		}
		c.Path = filepath.Clean(u.Path)
		return s.text, nil
	})
}

// stateDir is where what belongs to the daemon lies when the file does not say:
// beside the catalogue, or the spool when that is no file.
func (c *Config) stateDir() string {
	switch {
	case c.Catalog.Path != "":
		return filepath.Dir(c.Catalog.Path)
	case c.Storage.Spool != "":
		return filepath.Dir(c.Storage.Spool)
	}
	return "/var/lib/trunktap"
}
