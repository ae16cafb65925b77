package pkcs11

import (
	"errors"
	"fmt"
	"slices"

	p11 "github.com/miekg/pkcs11"

	"github.com/trunktap/trunktap/recorder"
	"github.com/trunktap/trunktap/recorder/seal"
)

// What the codes of PKCS#11 v2.40, section 5.1, mean for a key-encryption key.
var (
	revokedCodes = []p11.Error{
		p11.CKR_KEY_FUNCTION_NOT_PERMITTED, p11.CKR_PIN_INCORRECT, p11.CKR_PIN_LOCKED, p11.CKR_PIN_EXPIRED,
		p11.CKR_USER_PIN_NOT_INITIALIZED, p11.CKR_KEY_NOT_WRAPPABLE, p11.CKR_KEY_UNEXTRACTABLE, p11.CKR_TOKEN_WRITE_PROTECTED,
	}
	tamperedCodes = []p11.Error{
		p11.CKR_ENCRYPTED_DATA_INVALID, p11.CKR_ENCRYPTED_DATA_LEN_RANGE, p11.CKR_WRAPPED_KEY_INVALID,
		p11.CKR_WRAPPED_KEY_LEN_RANGE, p11.CKR_SIGNATURE_INVALID,
	}
	// goneCodes tell that a handle is stale: look for the key again.
	goneCodes = []p11.Error{
		p11.CKR_KEY_HANDLE_INVALID, p11.CKR_OBJECT_HANDLE_INVALID, p11.CKR_WRAPPING_KEY_HANDLE_INVALID, p11.CKR_UNWRAPPING_KEY_HANDLE_INVALID,
	}
	// vagueCodes are what some tokens say of altered data too.
	vagueCodes = []p11.Error{
		p11.CKR_GENERAL_ERROR, p11.CKR_FUNCTION_FAILED, p11.CKR_DEVICE_ERROR, p11.CKR_ARGUMENTS_BAD, p11.CKR_DATA_INVALID, p11.CKR_DATA_LEN_RANGE,
	}
)

func codeOf(err error, codes []p11.Error) bool {
	var e p11.Error
	return errors.As(err, &e) && slices.Contains(codes, e)
}

// class says what an error of the library means. What is neither a refusal nor a
// fault of the data may pass: a token that was pulled, a lost session, a device
// that is busy.
func class(err error) error {
	switch {
	case err == nil, errors.Is(err, recorder.ErrKey), errors.Is(err, recorder.ErrTampered):
		return err
	case codeOf(err, revokedCodes):
		return fmt.Errorf("%w: %w", seal.ErrRevoked, err)
	case codeOf(err, tamperedCodes):
		return fmt.Errorf("%w: %w", recorder.ErrTampered, err)
	}
	return fmt.Errorf("%w: %w", seal.ErrUnreachable, err)
}
