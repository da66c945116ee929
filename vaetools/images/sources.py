"""Where images come from: formats and modes, by number."""

# A file header holds a format and a mode as one byte each: the index into these tuples. The order is therefore fixed for
# ever. New names go to the end, none is ever moved, renamed or taken out; 0 stands for whatever is not listed.
FORMATS_KNOWN = (
    "",
    "PNG",
    "JPEG",
    "WEBP",
    "TIFF",
    "AVIF",
    "BMP",
    "PPM",
    "GIF",
    "MPO",
    "JPEG2000",
    "HEIF",
    "TGA",
    "ICO",
    "DIB",
    "PCX",
    "JXL",
)
MODES_KNOWN = (
    "",
    "1",
    "L",
    "LA",
    "La",
    "P",
    "PA",
    "RGB",
    "RGBA",
    "RGBa",
    "RGBX",
    "CMYK",
    "YCbCr",
    "I",
    "I;16",
    "LA;16",
    "RGB;16",
    "RGBA;16",
    "CMYK;16",
)
