package config

import "time"

func restartTable(r *Restart) *node {
	return key("restart", "What becomes of calls when the daemon was killed and starts again. See docs/restart.md.", object(
		key("calls", "keep: answered calls go on. end: nothing is kept of them.", choice(&r.Calls, []string{"keep", "end"}, nil)).is("keep"),
		key("downtime_max", "Calls end all the same when the daemon was away for longer.",
			duration(&r.DowntimeMax, time.Second, time.Hour)).is("1m"),
		key("journal", "The file that they are kept in, sealed. Without the key: calls.journal beside the catalogue.",
			path(&r.Journal)).shown("/var/lib/trunktap/calls.journal"),
	)).atStart()
}
