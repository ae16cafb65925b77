package main

import (
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"

	"gopkg.in/hraban/opus.v2"
)

// version is set by the linker: -X main.version=...
var version string

// Version is what `trunktap version` tells.
type Version struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"` // of the source
	Modified bool   `json:"modified,omitempty"` // the source differed from the revision
	Go       string `json:"go"`
	Platform string `json:"platform"`
	Opus     string `json:"opus"`
}

func currentVersion() Version {
	v := Version{Version: version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH, Opus: opus.Version()}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{}
	}
	if v.Version == "" {
		v.Version = info.Main.Version
	}
	if v.Version == "" {
		v.Version = "(devel)"
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Revision = s.Value
		case "vcs.modified":
			v.Modified = s.Value == "true"
		}
	}
	return v
}

type versionCmd struct {
	JSON bool `help:"Print JSON." name:"json"`
}

// Run prints the version.
func (c *versionCmd) Run(e *env) error {
	v := currentVersion()
	if c.JSON {
		return json.NewEncoder(e.stdout).Encode(v)
	}
	_, err := fmt.Fprintf(e.stdout, "trunktap %s\nrevision %s\n%s %s\n%s\n", v.Version, v.Revision, v.Go, v.Platform, v.Opus)
	return err
}
