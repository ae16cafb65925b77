package bucket

import (
	"context"
	"errors"
)

func openGCS(context.Context, config) (*Bucket, error) {
	return nil, errors.New("gs:// is not supported by this version")
}

func openAzure(context.Context, config) (*Bucket, error) {
	return nil, errors.New("azblob:// is not supported by this version")
}
