"""Small office documents, written by hand as the parts that an office program would put into them."""

import io
import zipfile

_TYPES = "http://schemas.openxmlformats.org/package/2006/content-types"
_LINKS = "http://schemas.openxmlformats.org/package/2006/relationships"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_SHEET = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_SLIDE = "http://schemas.openxmlformats.org/presentationml/2006/main"
_DRAWING = "http://schemas.openxmlformats.org/drawingml/2006/main"


def zipped(parts, stored=()):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in parts.items():
            archive.writestr(name, text, zipfile.ZIP_STORED if name in stored else zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def links(**targets):
    """Relations by their ids: the kind and the part."""
    inside = "".join(
        f'<Relationship Id="{name}" Type="{_OFFICE}/{kind}" Target="{part}"/>' for name, (kind, part) in targets.items()
    )
    return f'<?xml version="1.0"?><Relationships xmlns="{_LINKS}">{inside}</Relationships>'


def open_xml(main, kind, parts):
    content_types = (
        f'<?xml version="1.0"?><Types xmlns="{_TYPES}"><Default Extension="rels" '
        'ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        '<Default Extension="xml" ContentType="application/xml"/><Override '
        f'PartName="/{main}" ContentType="application/vnd.openxmlformats-officedocument.{kind}.main+xml"/></Types>'
    )
    return zipped({"[Content_Types].xml": content_types, "_rels/.rels": links(r1=("officeDocument", main)), **parts})


def paragraph(text, style="", page_break=False):
    style = f'<w:pPr><w:pStyle w:val="{style}"/></w:pPr>' if style else ""
    after = '<w:r><w:br w:type="page"/></w:r>' if page_break else ""
    return f"<w:p>{style}<w:r><w:t>{text}</w:t></w:r>{after}</w:p>"


def docx(*body, before=""):
    styles = "".join(
        f'<w:style w:type="paragraph" w:styleId="Heading{n}"><w:name w:val="heading {n}"/><w:pPr>'
        f'<w:outlineLvl w:val="{n - 1}"/></w:pPr></w:style>'
        for n in (1, 2)
    )
    return open_xml(
        "word/document.xml",
        "wordprocessingml.document",
        {
            "word/document.xml": f'<?xml version="1.0"?>{before}<w:document xmlns:w="{_WORD}"><w:body>{"".join(body)}'
            "</w:body></w:document>",
            "word/styles.xml": f'<?xml version="1.0"?><w:styles xmlns:w="{_WORD}">{styles}</w:styles>',
            "word/_rels/document.xml.rels": links(r1=("styles", "styles.xml")),
        },
    )


def docx_table(*rows):
    cells = ("".join(f"<w:tc>{paragraph(cell)}</w:tc>" for cell in row) for row in rows)
    return f"<w:tbl>{''.join(f'<w:tr>{row}</w:tr>' for row in cells)}</w:tbl>"


def xlsx(sheets, hidden=()):
    """Sheets by name; each a dictionary of rows by their numbers, of texts and numbers."""
    parts, entries, targets = {}, "", {}
    for number, (name, rows) in enumerate(sheets.items(), 1):
        state = ' state="hidden"' if name in hidden else ""
        entries += f'<sheet name="{name}" sheetId="{number}"{state} r:id="r{number}"/>'
        targets[f"r{number}"] = ("worksheet", f"worksheets/sheet{number}.xml")
        inside = "".join(f'<row r="{row}">{_cells(row, values)}</row>' for row, values in rows.items())
        parts[f"xl/worksheets/sheet{number}.xml"] = (
            f'<?xml version="1.0"?><worksheet xmlns="{_SHEET}"><sheetData>{inside}</sheetData></worksheet>'
        )
    parts["xl/workbook.xml"] = (
        f'<?xml version="1.0"?><workbook xmlns="{_SHEET}" xmlns:r="{_OFFICE}"><sheets>{entries}</sheets></workbook>'
    )
    parts["xl/_rels/workbook.xml.rels"] = links(**targets)
    return open_xml("xl/workbook.xml", "spreadsheetml.sheet", parts)


def _cells(row, values):
    said = ""
    for column, value in zip("ABCDEFGH", values, strict=False):
        if isinstance(value, str):
            said += f'<c r="{column}{row}" t="inlineStr"><is><t>{value}</t></is></c>'
        elif value is not None:
            said += f'<c r="{column}{row}"><v>{value}</v></c>'
    return said


def pptx(*slides, notes=None, order=()):
    """Slides of a title and a text; notes by the number of their slide, in files from 1; the order of the show."""
    parts, entries, targets = {}, "", {}
    for number in order or range(1, len(slides) + 1):
        title, text = slides[number - 1]
        entries += f'<p:sldId id="{255 + number}" r:id="r{number}"/>'
        targets[f"r{number}"] = ("slide", f"slides/slide{number}.xml")
        parts[f"ppt/slides/slide{number}.xml"] = _slide("sld", _shape("title", title), _shape("body", text))
    for place, (number, said) in enumerate((notes or {}).items(), 1):
        parts[f"ppt/slides/_rels/slide{number}.xml.rels"] = links(
            r1=("notesSlide", f"../notesSlides/notesSlide{place}.xml")
        )
        parts[f"ppt/notesSlides/notesSlide{place}.xml"] = _slide("notes", _shape("body", said))
        parts[f"ppt/notesSlides/_rels/notesSlide{place}.xml.rels"] = links(r1=("slide", f"../slides/slide{number}.xml"))
    parts["ppt/presentation.xml"] = (
        f'<?xml version="1.0"?><p:presentation xmlns:p="{_SLIDE}" xmlns:r="{_OFFICE}"><p:sldIdLst>{entries}'
        "</p:sldIdLst></p:presentation>"
    )
    parts["ppt/_rels/presentation.xml.rels"] = links(**targets)
    return open_xml("ppt/presentation.xml", "presentationml.presentation", parts)


def _slide(kind, *shapes):
    return (
        f'<?xml version="1.0"?><p:{kind} xmlns:p="{_SLIDE}" xmlns:a="{_DRAWING}"><p:cSld><p:spTree>'
        f"{''.join(shapes)}</p:spTree></p:cSld></p:{kind}>"
    )


def _shape(kind, text):
    return (
        f'<p:sp><p:nvSpPr><p:cNvPr id="2" name="{kind}"/><p:cNvSpPr/><p:nvPr><p:ph type="{kind}"/></p:nvPr></p:nvSpPr>'
        f"<p:spPr/><p:txBody><a:bodyPr/><a:p><a:r><a:t>{text}</a:t></a:r></a:p></p:txBody></p:sp>"
    )


def odt(body):
    space = "urn:oasis:names:tc:opendocument:xmlns"
    kind = "application/vnd.oasis.opendocument.text"
    content = (
        f'<?xml version="1.0"?><office:document-content xmlns:office="{space}:office:1.0" '
        f'xmlns:text="{space}:text:1.0" xmlns:table="{space}:table:1.0"><office:body><office:text>{body}'
        "</office:text></office:body></office:document-content>"
    )
    manifest = (
        f'<?xml version="1.0"?><manifest:manifest xmlns:manifest="{space}:manifest:1.0"><manifest:file-entry '
        f'manifest:full-path="/" manifest:media-type="{kind}"/></manifest:manifest>'
    )
    parts = {"mimetype": kind, "content.xml": content, "META-INF/manifest.xml": manifest}
    return zipped(parts, stored={"mimetype"})


def epub(title, *chapters):
    names = [f"c{number}" for number in range(len(chapters))]
    items = "".join(f'<item id="{n}" href="{n}.xhtml" media-type="application/xhtml+xml"/>' for n in names)
    spine = "".join(f'<itemref idref="{n}"/>' for n in names)
    parts = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": '<?xml version="1.0"?><container version="1.0" '
        'xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles><rootfile full-path="book.opf" '
        'media-type="application/oebps-package+xml"/></rootfiles></container>',
        "book.opf": '<?xml version="1.0"?><package xmlns="http://www.idpf.org/2007/opf" version="3.0"><metadata '
        f'xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>{title}</dc:title></metadata><manifest>{items}'
        f"</manifest><spine>{spine}</spine></package>",
        **{
            f"{name}.xhtml": f'<html xmlns="http://www.w3.org/1999/xhtml"><body>{chapter}</body></html>'
            for name, chapter in zip(names, chapters, strict=True)
        },
    }
    return zipped(parts, stored={"mimetype"})
