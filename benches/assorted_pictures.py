#!/usr/bin/env python3
"""A folder of assorted pictures as people have them: many sizes and formats, and every fault that one meets.

  python3 benches/assorted_pictures.py FOLDER [COUNT]

Three folders of classes with JPEG (also CMYK, grey, turned by EXIF), PNG (also of 16 bits, transparent, with a palette), WebP, animated GIF, BMP and TIFF files of 20 to 1,600 pixels a side, all of them
smooth patches of colour. About one file in thirty is cut off, empty, a text with the ending of a picture, or smaller than 16 pixels. Besides: notes, hidden files, links that lead nowhere and in a circle,
a linked folder, pictures beside the folders. The same COUNT gives the same files. Needs numpy and Pillow.
"""
import os
import sys

import numpy as np
from PIL import Image

CLASSES = ["harbour", "meadow", "night"]


def patches(r, width, height, kind):
    """Colours that change slowly, of a hue and brightness that its class has more often."""
    coarse = r.uniform(0, 255, (r.integers(2, 6), r.integers(2, 6), 3))
    tint = np.array([[90, 120, 200], [90, 180, 80], [30, 30, 60]][kind])
    coarse = 0.5 * coarse + 0.5 * tint
    image = Image.fromarray(coarse.astype("u1")).resize((width, height), Image.BICUBIC)
    grain = r.normal(0, 4, (height, width, 1))
    return Image.fromarray(np.clip(np.asarray(image) + grain, 0, 255).astype("u1"))


def save(r, place, name, kind):
    """One file in one of the formats; its path."""
    side = int(np.exp(r.uniform(np.log(20), np.log(1600))))
    width, height = side, max(20, int(side * r.uniform(0.6, 1.6)))
    image = patches(r, width, height, kind)
    at = lambda ending: os.path.join(place, f"{name}.{ending}")
    what = r.choice(["jpg"] * 12 + ["jpeg-grey", "cmyk", "turned", "png", "png", "deep", "clear", "palette", "webp", "gif", "bmp", "tif"])
    if what == "deep":
        grey = np.asarray(image.convert("L")).astype("u2") * 257 + r.integers(0, 257, (height, width)).astype("u2")
        path = at("png")
        Image.fromarray(np.minimum(grey, 65535).astype("u2")).save(path)
    elif what == "clear":
        image.putalpha(Image.fromarray(r.integers(0, 256, (2, 2), dtype="u1")).resize((width, height), Image.BILINEAR))
        image.save(path := at("png"))
    elif what == "palette":
        image.quantize(16).save(path := at("png"))
    elif what == "gif":
        more = [patches(r, width, height, kind).quantize(32) for _ in range(3)]
        image.quantize(32).save(path := at("gif"), save_all=True, append_images=more, duration=80)
    elif what == "turned":
        exif = Image.Exif()
        exif[0x0112] = int(r.choice([3, 6, 8]))
        image.save(path := at("jpg"), exif=exif)
    elif what == "cmyk":
        image.convert("CMYK").save(path := at("jpg"))
    elif what == "jpeg-grey":
        image.convert("L").save(path := at("JPG"), "JPEG")
    else:
        image.save(path := at(what))
    return path


def main():
    top, count = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 200
    r = np.random.default_rng(7)
    for name in CLASSES:
        os.makedirs(os.path.join(top, name), exist_ok=True)
    for i in range(count):
        kind = i % len(CLASSES)
        place = os.path.join(top, CLASSES[kind])
        path = save(r, place, f"p{i:05}", kind)
        if i % 31 == 30:
            fault = i // 31 % 4
            if fault == 0:
                with open(path, "rb+") as file:
                    file.truncate(os.path.getsize(path) * 2 // 5)
            elif fault == 1:
                open(path, "wb").close()
            elif fault == 2:
                with open(path, "w") as file:
                    file.write("<html>404</html>")
            else:
                patches(r, 9, 14, kind).save(path.rsplit(".", 1)[0] + ".png")
                if not path.endswith(".png"):
                    os.remove(path)
    for name in ["notes.txt", ".DS_Store", "._p00000.jpg", "holiday.heic", "Thumbs.db"]:
        with open(os.path.join(top, CLASSES[0], name), "w") as file:
            file.write("no picture")
    for i in range(2):
        patches(r, 64, 64, i).save(os.path.join(top, f"cover{i}.png"))
    elsewhere = top.rstrip("/") + "-elsewhere"
    os.makedirs(elsewhere, exist_ok=True)
    for i in range(max(1, count // 50)):
        save(r, elsewhere, f"e{i:04}", 1)
    for link, target in [("moor", os.path.abspath(elsewhere)), ("again", "."), (os.path.join(CLASSES[2], "gone.jpg"), "/nowhere/gone.jpg")]:
        link = os.path.join(top, link)
        if not os.path.islink(link):
            os.symlink(target, link)


if __name__ == "__main__":
    main()
