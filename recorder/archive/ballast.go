package archive

import (
	"crypto/rand"

	"github.com/trunktap/trunktap/recorder/vfs"
)

// A disk that is full to its last byte takes neither the order to delete something nor the
// log's entry of it, so nothing would ever make room on it. The ballast is room that is kept for
// these in the spool; who deletes gives it up first.

const (
	ballastBytes = 4 << 20
	ballastFile  = "ballast.room"
)

// keepBallast writes the ballast where there is none, as far as there is room, and something
// is ever deleted.
func (a *Archive) keepBallast() {
	if a.cfg.ReadOnly || len(a.cfg.Retention.Policy) == 0 {
		return
	}
	name := a.spool(ballastFile)
	if info, err := a.fsys.Stat(name); err == nil && info.Size() == ballastBytes {
		return
	}
	content := make([]byte, ballastBytes)
	_, _ = rand.Read(content)                // never fails; a file system that compresses makes no room of nothing
	_ = vfs.WriteFile(a.fsys, name, content) // tried again with the next run
}

// dropBallast gives the ballast up when the disk is full.
func (a *Archive) dropBallast() {
	if free, err := a.fsys.Free(a.cfg.SpoolDir); err != nil || free < ballastBytes {
		_ = a.removeFile(a.spool(ballastFile)) // then there is none
	}
}
