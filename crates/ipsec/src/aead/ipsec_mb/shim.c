// Glue between libipsec-mb and Rust. Only this file depends on the layout of the library's
// structures.

#include <stdalign.h>
#include <stddef.h>
#include <stdint.h>

#include <intel-ipsec-mb.h>

#if IMB_VERSION_NUM < IMB_VERSION(1, 1, 0)
#error "libipsec-mb 1.1 or later is required: apt-get install libipsec-mb-dev"
#endif

_Static_assert(sizeof(struct gcm_key_data) <= 1024, "GcmKey in ffi.rs is too small");
_Static_assert(sizeof(struct gcm_context_data) <= 128, "GcmContext in ffi.rs is too small");
_Static_assert(alignof(struct gcm_key_data) <= 64 && alignof(struct gcm_context_data) <= 64, "alignment in ffi.rs is too small");

// The AES-GCM functions of the library's direct API for one key length.
struct xdpfwd_imb_gcm {
    aes_gcm_pre_t expand;
    aes_gcm_enc_dec_t seal;
    aes_gcm_enc_dec_t open;
};

struct xdpfwd_imb_functions {
    struct xdpfwd_imb_gcm aes_128;
    struct xdpfwd_imb_gcm aes_256;
};

// Allocates a manager and initializes it for this processor. On failure, returns NULL and sets
// `reason` to a static string.
IMB_MGR *xdpfwd_imb_new(const char **reason)
{
    IMB_MGR *manager = alloc_mb_mgr(0);
    if (manager == NULL) {
        *reason = "cannot allocate memory";
        return NULL;
    }
    IMB_ARCH arch = IMB_ARCH_NONE;
    init_mb_mgr_auto(manager, &arch);
    int error = imb_get_errno(manager);
    if (error != 0)
        *reason = imb_get_strerror(error);
    else if (arch == IMB_ARCH_NONE)
        *reason = "the library does not support this processor";
    else if ((manager->features & IMB_FEATURE_SELF_TEST) && !(manager->features & IMB_FEATURE_SELF_TEST_PASS))
        *reason = "the library's self-test failed";
    else
        return manager;
    free_mb_mgr(manager);
    return NULL;
}

void xdpfwd_imb_free(IMB_MGR *manager)
{
    free_mb_mgr(manager);
}

void xdpfwd_imb_functions(const IMB_MGR *manager, struct xdpfwd_imb_functions *functions)
{
    functions->aes_128 = (struct xdpfwd_imb_gcm){manager->gcm128_pre, manager->gcm128_enc, manager->gcm128_dec};
    functions->aes_256 = (struct xdpfwd_imb_gcm){manager->gcm256_pre, manager->gcm256_enc, manager->gcm256_dec};
}

// Encrypts or decrypts a text in place with ChaCha20-Poly1305, and writes the computed tag. Uses
// the job API, because the direct API needs three calls, which take 1.5 times as long for short
// texts. Leaves no job in the manager. Returns 0 on success, -1 on failure.
int xdpfwd_imb_chacha20_poly1305(IMB_MGR *manager, int decrypt, const uint8_t *key, const uint8_t *nonce, const uint8_t *aad,
                                 uint64_t aad_len, uint8_t *text, uint64_t len, uint8_t *tag)
{
    IMB_JOB *job = IMB_GET_NEXT_JOB(manager);
    job->cipher_mode = IMB_CIPHER_CHACHA20_POLY1305;
    job->hash_alg = IMB_AUTH_CHACHA20_POLY1305;
    job->cipher_direction = decrypt ? IMB_DIR_DECRYPT : IMB_DIR_ENCRYPT;
    job->chain_order = decrypt ? IMB_ORDER_HASH_CIPHER : IMB_ORDER_CIPHER_HASH;
    job->enc_keys = key;
    job->dec_keys = key;
    job->key_len_in_bytes = 32;
    job->src = text;
    job->dst = text;
    job->cipher_start_src_offset_in_bytes = 0;
    job->msg_len_to_cipher_in_bytes = len;
    job->hash_start_src_offset_in_bytes = 0;
    job->msg_len_to_hash_in_bytes = len;
    job->iv = nonce;
    job->iv_len_in_bytes = 12;
    job->auth_tag_output = tag;
    job->auth_tag_output_len_in_bytes = 16;
    job->u.CHACHA20_POLY1305.aad = aad;
    job->u.CHACHA20_POLY1305.aad_len_in_bytes = aad_len;
    job->u.CHACHA20_POLY1305.ctx = NULL;
    // Submit without argument checks: the caller's types guarantee valid arguments.
    IMB_JOB *done = IMB_SUBMIT_JOB_NOCHECK(manager);
    if (done == NULL)
        done = IMB_FLUSH_JOB(manager);
    if (done == job && done->status == IMB_STATUS_COMPLETED)
        return 0;
    // Failed: remove all jobs that are left in the manager.
    while (IMB_FLUSH_JOB(manager) != NULL)
        ;
    return -1;
}
