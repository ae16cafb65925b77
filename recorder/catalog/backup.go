package catalog

// backuper is how an engine is backed up.
type backuper interface{}
