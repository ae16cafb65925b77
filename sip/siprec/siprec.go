// Package siprec is session recording by SIP: the metadata of RFC 7865 and the
// session recording server of RFC 7866.
package siprec
