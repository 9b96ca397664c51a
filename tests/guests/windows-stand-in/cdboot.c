/* The program that Microsoft's media start first: it asks for a key and goes on to the boot manager beside it only if one
 * comes within five seconds; else it gives the machine back to the firmware, which tries the next device.
 *
 * A UEFI application with just the parts of the firmware's tables that it uses (UEFI specification 2.10: 4.3, 12.3, 12.4, 7.4). */

typedef unsigned long long u64;
typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned char u8;
typedef u64 status;
typedef void *handle;
#define EFIAPI __attribute__((ms_abi))
#define ERROR(code) (0x8000000000000000ull | (code))
#define TIMEOUT ERROR(18)
#define TENTHS_TO_WAIT 50

typedef struct { u32 a; u16 b, c; u8 d[8]; } guid;
typedef struct { u64 signature; u32 revision, size, crc, reserved; } table_header;
typedef struct { u16 scan, character; } key;

typedef struct input {
  status(EFIAPI *reset)(struct input *, u8);
  status(EFIAPI *read_key)(struct input *, key *);
  handle wait_for_key;
} input;

typedef struct output {
  void *reset;
  status(EFIAPI *print)(struct output *, const u16 *);
} output;

typedef struct {
  table_header header;
  void *tpl[2], *memory[5];
  void *create_event, *set_timer, *wait_for_event, *signal_event, *close_event, *check_event;
  void *install_protocol, *reinstall_protocol, *uninstall_protocol;
  status(EFIAPI *handle_protocol)(handle, const guid *, void **);
  void *reserved, *register_protocol_notify, *locate_handle, *locate_device_path, *install_configuration_table;
  status(EFIAPI *load_image)(u8, handle, void *, void *, u64, handle *);
  status(EFIAPI *start_image)(handle, u64 *, u16 **);
  void *exit, *unload_image, *exit_boot_services, *get_next_monotonic_count;
  status(EFIAPI *stall)(u64);
} boot_services;

typedef struct {
  table_header header;
  u16 *vendor;
  u32 revision;
  handle input_handle;
  input *in;
  handle output_handle;
  output *out;
  handle error_handle;
  output *error;
  void *runtime;
  boot_services *boot;
} system_table;

typedef struct {
  u32 revision;
  handle parent;
  system_table *system;
  handle device;
} loaded_image;

typedef struct { u8 type, subtype, length[2]; } path_node;

static const guid loaded_image_id = {0x5b1b31a1, 0x9562, 0x11d2, {0x8e, 0x3f, 0x00, 0xa0, 0xc9, 0x69, 0x72, 0x3b}};
static const guid device_path_id = {0x09576e91, 0x6d3f, 0x11d2, {0x8e, 0x39, 0x00, 0xa0, 0xc9, 0x69, 0x72, 0x3b}};
static const u16 next[] = u"\\EFI\\BOOT\\BOOTMGR.EFI";

static u8 path[2048];

/* The device's path with a file's behind it. */
static int path_of_file(const u8 *device) {
  u64 at = 0;
  const path_node *node;
  for (node = (const path_node *)device; node->type != 0x7f;) {
    u64 length = node->length[0] | (u64)node->length[1] << 8;
    if (length < 4 || at + length + sizeof next + 8 > sizeof path) return 0;
    for (u64 i = 0; i < length; i++) path[at + i] = ((const u8 *)node)[i];
    at += length;
    node = (const path_node *)((const u8 *)node + length);
  }
  u64 length = 4 + sizeof next;
  path[at] = 4, path[at + 1] = 4, path[at + 2] = (u8)length, path[at + 3] = (u8)(length >> 8);
  for (u64 i = 0; i < sizeof next; i++) path[at + 4 + i] = ((const u8 *)next)[i];
  at += length;
  path[at] = 0x7f, path[at + 1] = 0xff, path[at + 2] = 4, path[at + 3] = 0;
  return 1;
}

status EFIAPI efi_main(handle self, system_table *system) {
  key pressed;
  input *in = system->in;
  in->reset(in, 0);
  system->out->print(system->out, u"Press any key to boot from CD or DVD..");
  int tenths;
  for (tenths = 0; tenths < TENTHS_TO_WAIT; tenths++) {
    if (in->read_key(in, &pressed) == 0) break;
    if (tenths % 10 == 9) system->out->print(system->out, u".");
    system->boot->stall(100000);
  }
  system->out->print(system->out, u"\r\n");
  if (tenths == TENTHS_TO_WAIT) return TIMEOUT;

  loaded_image *image;
  void *device;
  handle started;
  status failed = system->boot->handle_protocol(self, &loaded_image_id, (void **)&image);
  if (failed) return failed;
  failed = system->boot->handle_protocol(image->device, &device_path_id, &device);
  if (failed) return failed;
  if (!path_of_file(device)) return ERROR(9);
  failed = system->boot->load_image(0, self, path, 0, 0, &started);
  if (failed) return failed;
  return system->boot->start_image(started, 0, 0);
}
