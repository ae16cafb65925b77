package vfs

// Group syncs all files of one file system at once, which for many files that
// grow a little costs a small part of what one Sync for each costs: the journal
// is committed once and the disk's cache flushed once.
type Group interface {
	// Sync makes everything durable that was done before: content, sizes and the
	// entries of directories. An error tells that something since the Group was
	// opened, or since its last error, may be lost; which file's it was is not told.
	Sync() error
	Close() error
}

// Grouper is a file system that has groups.
type Grouper interface {
	// OpenGroup returns the group of the file system that a directory lies on;
	// errors.ErrUnsupported where that cannot be synced as one.
	OpenGroup(dir string) (Group, error)
}
