package config

import (
	"path/filepath"
	"strings"
	"time"
)

// memoryFolder is auto, none or an absolute path.
func memoryFolder(target *string) *node {
	schema := map[string]any{"type": "string", "pattern": "^(auto|none|/.*)$"}
	return leaf(target, "auto, none or an absolute path such as /run/trunktap", schema, func(s scalar) (string, *wrong) {
		switch {
		case s.kind != stringScalar || s.text != "auto" && s.text != "none" && !filepath.IsAbs(s.text):
			return "", wrongf("%v is neither auto nor none nor an absolute path", s)
		case strings.ContainsRune(s.text, 0):
			return "", wrongf("the path holds a zero byte")
		case filepath.IsAbs(s.text):
			return filepath.Clean(s.text), nil
		}
		return s.text, nil
	})
}

func restartTable(r *Restart) *node {
	return key("restart", "What becomes of calls when the daemon was killed and starts again. See docs/restart.md.", object(
		key("calls", "keep: answered calls go on. end: nothing is kept of them.", choice(&r.Calls, []string{"keep", "end"}, nil)).is("keep"),
		key("downtime_max", "Calls end all the same when the daemon was away for longer.",
			duration(&r.DowntimeMax, time.Second, time.Hour)).is("1m"),
		key("journal", "The file that they are kept in, sealed. Without the key: calls.journal beside the catalogue.",
			path(&r.Journal)).shown("/var/lib/trunktap/calls.journal"),
		key("key_dir", "Where a copy of its key outlives the process, so that calls go on though the key service of recordings is away: a folder in memory (tmpfs). auto: RuntimeDirectory of systemd, else /dev/shm. none: no copy.",
			memoryFolder(&r.KeyDir)).is("auto"),
	)).atStart()
}
