package archive

import (
	"context"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/vfs"
)

// withParent makes the manifest durable, and with it the folder that the recording
// is to be moved into.
func (s *sink) withParent(f vfs.File) error {
	up, made := s.folder.PrepareFolder(s.at.prefix)
	dirs := []string{s.dir, s.a.cfg.SpoolDir}
	if up != "" {
		dirs = append(dirs, up)
	}
	err := s.a.durable(f, dirs...)
	if err == nil {
		made()
	}
	return err
}

// publishFolder moves the recording from spool to store in one step. The row
// goes before it: behind it nothing in the spool would tell that it is missing.
func (s *sink) publishFolder(m *recorder.Manifest) error {
	ctx := context.Background()
	if err := s.a.saveRow(ctx, s.row(m, false)); err != nil {
		return err
	}
	if s.job == nil {
		s.job = s.a.noteJob(m, s.at)
	}
	if s.untidy {
		if err := s.a.tidy(s.id, m); err != nil {
			return err
		}
	}
	err := s.folder.PublishFolder(ctx, s.at.prefix, s.dir, func(dirs ...string) error { return s.a.durable(nil, dirs...) })
	if err != nil {
		return err
	}
	if s.marked {
		// Until now it told which store it is; left there it harms nobody.
		_ = s.at.store.Delete(ctx, s.at.object(markerFile))
	}
	s.a.spoolBytes.Add(-s.live.bytes.Swap(0))
	s.a.deferred.add(s.job)
	return nil
}

// publishBehind makes the recording known, finished in the spool, and leaves it to
// the queue of its store.
func (s *sink) publishBehind(m *recorder.Manifest) error {
	if s.job == nil {
		s.job = s.a.noteJob(m, s.at)
	}
	if err := s.begin(); err != nil {
		return err
	}
	if err := s.a.tidy(s.id, m); err != nil {
		return err
	}
	if err := s.spoolManifest(m); err != nil {
		return err
	}
	if !s.marked {
		if err := s.mark(); err != nil {
			return err
		}
	}
	if err := s.a.saveRow(context.Background(), s.row(m, true)); err != nil {
		return err
	}
	s.a.behind(s.at, s.live.bytes.Swap(0), s.job)
	return nil
}
