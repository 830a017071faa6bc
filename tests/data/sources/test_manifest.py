"""Tables as people have them: each kind works, or ends in one line that says what to type."""

import json
from pathlib import Path

import pytest

from data.errors import BadArgument, BadSample, DataError
from data.sources import Source, TableOptions, open_source
from tests.photos import class_folders, jpeg


def table(root: Path, text: str | bytes, name: str = "list.csv", photos: str = "abcd") -> str:
    """A table beside photos a.jpg to d.jpg."""
    for number, photo in enumerate(photos):
        (root / f"{photo}.jpg").write_bytes(jpeg(number))
    (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(root / name)


def labels_of(source: Source, task: str) -> dict[str, str | None]:
    """key -> class name."""
    names, column = source.tasks[task], list(source.tasks).index(task)
    return {record.key: names[label] if (label := record.labels[column]) >= 0 else None for record in source.records}


def said(source: Source) -> str:
    return "\n".join(source.notes)


PLAIN = "image,age,sex\na.jpg,old,f\nb.jpg,,m\n"
PLAIN_LABELS = {"age": {"a": "old", "b": None}, "sex": {"a": "f", "b": "m"}}


def check_plain(source: Source) -> None:
    assert {task: labels_of(source, task) for task in source.tasks} == PLAIN_LABELS


def test_manifest_reads_missing_labels(tmp_path):
    source = open_source(table(tmp_path, PLAIN))
    assert source.tasks == {"age": ("old",), "sex": ("f", "m")}
    assert labels_of(source, "age") == {"a": "old", "b": None}


def test_manifest_sorts_numbers_as_numbers(tmp_path):
    source = open_source(table(tmp_path, "image,age\na.jpg,10\nb.jpg,9\nc.jpg,100\n"))
    assert source.tasks["age"] == ("9", "10", "100")


GAPS = "image,age,kind\na.jpg,1.0,cat\nb.jpg,,NA\nc.jpg,nan,\nd.jpg,10.0,null\n"


def test_gaps_as_tools_write_them_are_missing_labels_and_counted(tmp_path):
    source = open_source(table(tmp_path, GAPS))
    assert labels_of(source, "age") == {"a": "1", "b": None, "c": None, "d": "10"}
    assert labels_of(source, "kind") == {"a": "cat", "b": None, "c": None, "d": None}
    assert source.notes == (
        "column 'age': 2 of 4 labels are missing (1 empty, 1 'nan'); --missing '' makes classes of words",
        "column 'kind': 3 of 4 labels are missing (1 'NA', 1 empty, 1 'null'); --missing '' makes classes of words",
    )


def test_missing_words_can_be_others_or_none(tmp_path):
    text = table(tmp_path, "image,kind\na.jpg,NA\nb.jpg,-1\nc.jpg,\n")
    source = open_source(text, options=TableOptions(missing=("-1",)))
    assert labels_of(source, "kind") == {"a": "NA", "b": None, "c": None}
    with pytest.raises(DataError, match=r"line 3, column 'kind': -1 is negative.*--missing=-1"):
        open_source(text, options=TableOptions(missing=()))
    with pytest.raises(BadArgument, match="--missing: is for tables, folder: reads none; leave it out"):
        open_source(str(class_folders(tmp_path / "photos")), options=TableOptions(missing=()))


def test_gaps_and_whole_decimals_in_json_lines(tmp_path):
    lines = ['{"image": "a.jpg", "n": 2.0}', '{"image": "b.jpg", "n": NaN}', '{"image": "c.jpg", "n": null}']
    lines += ['{"image": "d.jpg", "n": 10}', '{"image": "e.jpg", "n": "NA"}']
    source = open_source(table(tmp_path, "\n".join(lines), "list.jsonl"))
    assert source.tasks == {"n": ("2", "10")}
    assert [record.labels for record in source.records] == [(0,), (-1,), (-1,), (1,), (-1,)]
    assert "3 of 5 labels are missing (1 NaN, 1 empty, 1 'NA')" in source.notes[0]


@pytest.mark.parametrize("cell", ["2.5", "cat"])
def test_a_whole_decimal_beside_other_labels_is_a_decimal(cell, tmp_path):
    with pytest.raises(DataError, match=r"line 2, column 'age': label 1\.0 is a decimal"):
        open_source(table(tmp_path, f"image,age\na.jpg,1.0\nb.jpg,{cell}\n"))


def test_text_in_json_is_a_name_whatever_it_looks_like(tmp_path):
    source = open_source(table(tmp_path, '{"image": "a.jpg", "n": "1.0"}', "list.jsonl"))
    assert source.tasks == {"n": ("1.0",)}


@pytest.mark.parametrize(
    ("name", "cell"),
    [("p\udcff.jpg", r"p\xff.jpg"), (" lead.jpg", " lead.jpg"), ("sub/x.jpg", r"sub\x.jpg"), ("b\\s.jpg", "b\\s.jpg")],
)
def test_a_manifest_finds_files_by_any_way_to_write_their_names(name, cell, tmp_path):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(jpeg(7))
    source = open_source(table(tmp_path, f"image,n\n{cell},1\n"))
    assert source.image_bytes(source.records[0]) == jpeg(7)


def test_manifest_splits_and_jsonl(tmp_path):
    lines = [{"image": "a.jpg", "split": "train", "n": 3}, {"image": "b.jpg", "split": "test", "n": None}]
    source = open_source(table(tmp_path, "\n".join(map(json.dumps, lines)), "list.jsonl"))
    assert source.tasks == {"n": ("3",)}
    assert [(record.split, record.labels) for record in source.records] == [("train", (0,)), ("test", (-1,))]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("l.csv", "image,age\na.jpg,0.53\n", "line 2, column 'age': .*regression is not supported"),
        ("l.csv", "image,age\na.jpg,1e-3\n", "regression is not supported"),
        ("l.csv", 'image,age\na.jpg,"[1, 2]"\n', "several labels per task are not supported"),
        ("l.csv", "image,age\na.jpg,-1\n", "negative; leave a missing label empty"),
        ("l.csv", "image,age\na.jpg\n", "line 2 has 1 cells, the header has 2"),
        ("l.csv", "image,age,age\na.jpg,1,1\n", "its own name"),
        ("l.csv", "image,age\n", "no rows"),
        ("l.csv", "image,age\na.jpg,\n", "has no label in any row"),
        ("l.csv", "image,age\n,1\n", "line 2 names no photo"),
        ("l.csv", "image,age,split\na.jpg,1,trian\n", "split 'trian' is not one of"),
        ("l.jsonl", '{"image": "a.jpg", "age": 0.5}', "line 1, column 'age': .*float"),
        ("l.jsonl", '{"image": "a.jpg", "age": ["x"]}', "is a list"),
        ("l.jsonl", '{"image": "a.jpg"', "line 1 is not JSON"),
        ("l.list", "a.jpg 1", "must be a table"),
    ],
)
def test_manifest_refuses_in_words(name, text, message, tmp_path):
    with pytest.raises(DataError, match=message):
        open_source(table(tmp_path, text, name))


def test_manifest_with_a_missing_photo_is_a_bad_sample_not_a_stop(tmp_path):
    source = open_source(table(tmp_path, "image,age\na.jpg,1\nz.jpg,1\n"))
    with pytest.raises(BadSample, match=r"z\.jpg"):
        source.image_bytes(source.records[1])


# -- encodings and delimiters ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_other_delimiters_are_found_and_said(mark, tmp_path):
    source = open_source(table(tmp_path, PLAIN.replace(",", mark)))
    check_plain(source)
    assert "its columns are parted by" in said(source)


@pytest.mark.parametrize("name", ["list.tsv", "list.txt", "LIST.CSV", "list.tab"])
def test_other_names_of_tables(name, tmp_path):
    check_plain(open_source(table(tmp_path, PLAIN.replace(",", "\t"), name)))


def test_the_delimiter_of_a_header_counts_not_those_in_cells(tmp_path):
    text = 'image;what\na.jpg;"one, two, three"\nb.jpg;"four, five, six"\n'
    assert labels_of(open_source(table(tmp_path, text)), "what") == {"a": "one, two, three", "b": "four, five, six"}


def test_excel_says_its_delimiter_in_the_first_line_and_lines_are_still_counted_right(tmp_path):
    check_plain(open_source(table(tmp_path, "sep=;\r\n" + PLAIN.replace(",", ";").replace("\n", "\r\n"))))
    with pytest.raises(DataError, match=r"line 3 has 1 cells, the header has 2"):
        open_source(table(tmp_path, "sep=;\nimage;age\na.jpg\n"))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_encodings_that_show_in_the_bytes(encoding, tmp_path):
    check_plain(open_source(table(tmp_path, PLAIN.encode(encoding))))


@pytest.mark.parametrize(
    ("encoding", "words"),
    [
        ("cp1252", ["schön", "größer", "häßlich", "überall", "Mädchen"]),
        ("cp1251", ["красивый", "молодой", "старый", "женщина", "мужчина"]),
        ("gb18030", ["年轻的女人", "漂亮的老人", "普通的男人", "美丽的孩子", "非常好看"]),
        ("cp932", ["うつくしい", "わかいひと", "おとなの女性", "こどもたち", "ふつうです"]),
    ],
)
def test_code_pages_of_spreadsheets_are_guessed_and_said(encoding, words, tmp_path):
    rows = "".join(f"{photo}.jpg,{word}\n" for photo, word in zip("abcde", words, strict=True))
    source = open_source(table(tmp_path, f"image,what\n{rows}".encode(encoding), photos="abcde"))
    assert set(source.tasks["what"]) == set(words)
    assert "--encoding names another" in said(source)


def test_an_encoding_can_be_named(tmp_path):
    text = "image,what\na.jpg,Größe\nb.jpg,Łódź\n".encode("cp1250")
    source = open_source(table(tmp_path, text), options=TableOptions(encoding="cp1250"))
    assert set(source.tasks["what"]) == {"Größe", "Łódź"}
    with pytest.raises(BadArgument, match="--encoding cp99999: is none"):
        open_source(table(tmp_path, text), options=TableOptions(encoding="cp99999"))
    with pytest.raises(DataError, match=r"is not utf-8 text .*name its encoding with --encoding"):
        open_source(table(tmp_path, text), options=TableOptions(encoding="utf-8"))


def test_a_delimiter_can_be_named(tmp_path):
    text = PLAIN.replace(",", "^")
    check_plain(open_source(table(tmp_path, text), options=TableOptions(delimiter="^")))
    with pytest.raises(BadArgument, match="--delimiter ab: must be one character, or comma"):
        open_source(table(tmp_path, text), options=TableOptions(delimiter="ab"))


def test_json_lists_are_tables(tmp_path):
    rows = [{"image": "a.jpg", "age": "old", "sex": "f"}, {"image": "b.jpg", "sex": "m"}]
    check_plain(open_source(table(tmp_path, json.dumps(rows), "list.json")))
    with pytest.raises(DataError, match="must be a list of objects"):
        open_source(table(tmp_path, json.dumps({"a.jpg": "old"}), "list.json"))


@pytest.mark.parametrize(
    ("name", "way_out"),
    [
        ("l.xlsx", "Save as > CSV"),
        ("l.parquet", r"pandas.read_parquet\('.*l.parquet'\)"),
        ("l.csv.gz", "gunzip --keep"),
    ],
)
def test_other_kinds_of_tables_say_the_way_out(name, way_out, tmp_path):
    with pytest.raises(DataError, match=f"make it a CSV first: .*{way_out}"):
        open_source(table(tmp_path, "", name))


# -- rows and columns ------------------------------------------------------------------------------------------------


def test_ends_of_lines_and_empty_rows_as_spreadsheets_leave_them(tmp_path):
    text = "image,age,sex,,\na.jpg,old,f,,\n,,,,\n\nb.jpg,,m,,\n,,,,\n"
    source = open_source(table(tmp_path, text))
    check_plain(source)
    assert "2 empty rows passed over" in said(source)
    check_plain(open_source(table(tmp_path, "image,age,sex\na.jpg,old,f,\nb.jpg,,m,\n")))
    with pytest.raises(DataError, match=r"line 3 has 4 cells, the header has 3; a cell that holds the delimiter"):
        open_source(table(tmp_path, "image,age,sex\na.jpg,old,f,\nb.jpg,,m,x\n"))


@pytest.mark.parametrize("name", ["", "Unnamed: 0"])
def test_the_index_that_pandas_writes_is_left_out_and_said(name, tmp_path):
    source = open_source(table(tmp_path, f"{name},image,age,sex\n0,a.jpg,old,f\n1,b.jpg,,m\n"))
    check_plain(source)
    assert "a column without a name counts the rows, it is left out" in said(source)


def test_a_column_without_a_name_that_holds_something_is_refused(tmp_path):
    with pytest.raises(DataError, match="a column without a name holds 'x'; name it in the header"):
        open_source(table(tmp_path, "image,\na.jpg,x\nb.jpg,y\n"))


def test_a_table_without_a_header_is_refused_with_one(tmp_path):
    with pytest.raises(DataError, match=r"has no header, line 1 is a photo's; .* as image;task1"):
        open_source(table(tmp_path, "a.jpg;old\nb.jpg;young\n"))


def test_a_quote_that_is_not_closed_is_named(tmp_path):
    text = 'image,age\na.jpg,"old\n' + "b.jpg,young\n" * 200_000
    with pytest.raises(DataError, match=r'look for a quote \("\) that is not closed before it'):
        open_source(table(tmp_path, text))


# -- the column of photos --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Image", "filename", "file_name", "PATH", "image_id", "Image Path", "img", "photo"])
def test_the_column_of_photos_by_its_name(name, tmp_path):
    source = open_source(table(tmp_path, PLAIN.replace("image", name)))
    check_plain(source)
    assert name == "Image" or f"photos are named by the column {name!r}; --image names another" in said(source)


def test_the_column_of_photos_by_what_it_holds(tmp_path):
    check_plain(open_source(table(tmp_path, PLAIN.replace("image", "Bild"))))
    text = "id,filename,age\n1,a.jpg,old\n2,b.jpg,young\n"
    source = open_source(table(tmp_path, text), options=TableOptions(tasks=("age",)))
    assert labels_of(source, "age") == {"a": "old", "b": "young"}


def test_the_column_of_photos_by_files_that_are_there(tmp_path):
    text = "\ufeffDateiname;Alter\r\na;alt\r\nb;jung\r\n"
    source = open_source(table(tmp_path, text.encode("utf-16")))
    assert labels_of(source, "Alter") == {"a": "alt", "b": "jung"}


def test_the_column_of_photos_by_an_option_or_in_doubt(tmp_path):
    text = "first,second,age\na.jpg,b.jpg,old\nc.jpg,d.jpg,young\n"
    with pytest.raises(DataError, match="columns 'first', 'second' all name photos; say which with --image COLUMN"):
        open_source(table(tmp_path, text))
    source = open_source(table(tmp_path, text), options=TableOptions(image="second"))
    assert labels_of(source, "age") == {"b": "old", "d": "young"}
    assert list(source.tasks) == ["age"]
    with pytest.raises(DataError, match=r"no column names photos .*--image COLUMN"):
        open_source(table(tmp_path, "age,sex\nold,f\n"))
    with pytest.raises(BadArgument, match=r"--image third: .* has no such column"):
        open_source(table(tmp_path, text), options=TableOptions(image="third"))


# -- where the photos lie --------------------------------------------------------------------------------------------


def photos_in(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(jpeg(number))


def test_paths_with_backslashes_and_without_extensions(tmp_path):
    photos_in(tmp_path / "sub", "0001.jpg", "0002.JPG", "0003.jpeg")
    source = open_source(table(tmp_path, "image,n\nsub\\0001.jpg,x\nsub\\0002,y\nsub/0003,z\n"))
    assert [source.image_bytes(record) for record in source.records] == [jpeg(0), jpeg(1), jpeg(2)]
    assert [record.key for record in source.records] == ["sub/0001", "sub/0002", "sub/0003"]
    assert "found by their names without an extension" in said(source)


def test_a_name_without_an_extension_that_two_photos_have_is_refused(tmp_path):
    photos_in(tmp_path, "1.jpg", "1.png")
    with pytest.raises(DataError, match=r"is it 1\.jpg or 1\.png\? Name it in full"):
        open_source(table(tmp_path, "image_id,n\n1,x\n"))


def test_paths_that_begin_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    photos_in(tmp_path / "home", "x.jpg")
    source = open_source(table(tmp_path, "image,n\n~/x.jpg,1\n"))
    assert source.image_bytes(source.records[0]) == jpeg(0)


@pytest.mark.parametrize("cell", ["x.jpg", "/srv/anna/photos/x.jpg", "C:\\photos\\x.jpg", "x"])
def test_photos_in_another_folder_are_found_and_said(cell, tmp_path):
    photos_in(tmp_path / "data" / "photos", "x.jpg")
    source = open_source(table(tmp_path, f"image,n\n{cell},1\n"))
    assert source.image_bytes(source.records[0]) == jpeg(0)
    assert "its photos were found in" in said(source)


def test_the_folder_of_the_photos_can_be_named(tmp_path):
    photos_in(tmp_path / "one", "x.jpg")
    (tmp_path / "two").mkdir()
    text = table(tmp_path / "two", "image,n\nx.jpg,1\n", photos="")
    source = open_source(text, options=TableOptions(images=tmp_path / "one"))
    assert source.image_bytes(source.records[0]) == jpeg(0)
    with pytest.raises(DataError, match=r"none of its 1 photos is there, the first would be .*x\.jpg; .*--images DIR"):
        open_source(text)


@pytest.mark.parametrize("address", ["https://host/x.jpg", "s3://bucket/x.jpg"])
def test_web_addresses_say_the_way_out(address, tmp_path):
    with pytest.raises(DataError, match=r"line 3 names a web address \(.*\); download the photos first"):
        open_source(table(tmp_path, f"image,n\na.jpg,1\n{address},2\n"))


# -- what is a task --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pair", [("True", "False"), ("yes", "no"), ("-1", "1"), ("0", "1"), ("Y", "N")])
def test_two_words_are_two_classes(pair, tmp_path):
    source = open_source(table(tmp_path, f"image,smiling\na.jpg,{pair[0]}\nb.jpg,{pair[1]}\n"))
    assert labels_of(source, "smiling") == {"a": pair[0], "b": pair[1]}
    assert ("-1 and 1 are two classes; --missing=-1" in said(source)) == ("-1" in pair)


def test_true_and_false_in_json_are_two_classes(tmp_path):
    source = open_source(table(tmp_path, '[{"image": "a.jpg", "s": true}, {"image": "b.jpg", "s": false}]', "l.json"))
    assert labels_of(source, "s") == {"a": "true", "b": "false"}


def test_columns_that_are_no_task_are_left_out_and_said(tmp_path):
    rows = [
        f"{photo}.jpg,id{n},2024-05-{n + 1:02},https://h/{n},{n % 2}"
        for n, photo in enumerate("abcdefghijklmnopqrstuvwx")
    ]
    text = "image,id,taken,url,sex\n" + "\n".join(rows)
    source = open_source(table(tmp_path, text, photos="abcdefghijklmnopqrstuvwx"))
    assert list(source.tasks) == ["sex"]
    assert "no tasks: 'id' (its cells all differ), 'taken' (dates), 'url' (web addresses)" in said(source)


def test_decimals_name_the_way_out(tmp_path):
    with pytest.raises(DataError, match=r"column 'beauty': label 3\.5 is a decimal .*--tasks names the columns"):
        open_source(table(tmp_path, "image,beauty,sex\na.jpg,3.5,f\n"))
    with pytest.raises(DataError, match="label 3,5 is a decimal"):
        open_source(table(tmp_path, "image;beauty;sex\na.jpg;3,5;f\n"))
    assert list(
        open_source(table(tmp_path, "image,beauty,sex\na.jpg,3.5,f\n"), options=TableOptions(tasks=("sex",))).tasks
    ) == ["sex"]


def test_many_classes_for_few_photos_are_asked_about(tmp_path):
    rows = "".join(f"a.jpg,shop{n % 300},{n % 2}\n".replace("a.jpg", f"{n}.jpg") for n in range(900))
    text = table(tmp_path, "image,shop,sex\n" + rows)
    (tmp_path / "0.jpg").write_bytes(jpeg(0))
    with pytest.raises(
        DataError, match=r"column 'shop' has 300 different cells in 900 rows.*--tasks sex, with shop among"
    ):
        open_source(text)
    assert len(open_source(text, options=TableOptions(tasks=("shop", "sex"))).tasks["shop"]) == 300


def test_tasks_can_be_chosen(tmp_path):
    text = table(tmp_path, PLAIN)
    assert list(open_source(text, options=TableOptions(tasks=("sex",))).tasks) == ["sex"]
    with pytest.raises(BadArgument, match=r"--tasks: .* has no column 'size'"):
        open_source(text, options=TableOptions(tasks=("size",)))
    with pytest.raises(BadArgument, match="--tasks image: this column is used otherwise"):
        open_source(text, options=TableOptions(tasks=("image",)))


def test_classes_that_differ_in_case_or_blanks_are_asked_about(tmp_path):
    text = table(tmp_path, "image,c\na.jpg,light blue\nb.jpg,Light  Blue\nc.jpg,light blue \nd.jpg,red\n")
    with pytest.raises(
        DataError, match=r"'light blue' \(2\) and 'Light  Blue' \(1\) differ only in case or blanks; --case"
    ):
        open_source(text)
    assert open_source(text, options=TableOptions(case="merge")).tasks["c"] == ("light blue", "red")
    assert open_source(text, options=TableOptions(case="keep")).tasks["c"] == ("Light  Blue", "light blue", "red")


def test_class_folders_that_differ_in_case_are_asked_about(tmp_path):
    photos_in(tmp_path, "Cat/a.jpg", "cat/b.jpg", "cat/c.jpg", "dog/d.jpg")
    with pytest.raises(DataError, match=r"'cat' \(2\) and 'Cat' \(1\) differ only in case"):
        open_source(str(tmp_path))
    assert open_source(str(tmp_path), options=TableOptions(case="merge")).tasks == {"class": ("cat", "dog")}


# -- tags ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mark", ["|", ";", ","])
def test_tags_become_yes_no_tasks(mark, tmp_path):
    text = f'image,colour,sex\na.jpg,"red{mark}round",f\nb.jpg,red,m\nc.jpg,,m\nd.jpg,NA,f\n'
    source = open_source(table(tmp_path, text), options=TableOptions(tags=("colour",)))
    assert source.tasks == {"colour:red": ("no", "yes"), "colour:round": ("no", "yes"), "sex": ("f", "m")}
    assert labels_of(source, "colour:red") == {"a": "yes", "b": "yes", "c": "no", "d": None}
    assert labels_of(source, "colour:round") == {"a": "yes", "b": "no", "c": "no", "d": None}
    assert "2 tags, each a yes/no task called colour:TAG; 1 rows have none of them, of 1 they are missing" in said(
        source
    )


def test_tags_in_json_and_in_several_rows_of_one_photo(tmp_path):
    lines = [{"image": "a.jpg", "t": ["red", "round"]}, {"image": "b.jpg", "t": []}, {"image": "c.jpg", "t": None}]
    source = open_source(table(tmp_path, json.dumps(lines), "l.json"), options=TableOptions(tags=("t",)))
    assert labels_of(source, "t:red") == {"a": "yes", "b": "no", "c": None}
    source = open_source(
        table(tmp_path, "image,t\na.jpg,red\na.jpg,round\nb.jpg,red\n"), options=TableOptions(tags=("t",))
    )
    assert labels_of(source, "t:round") == {"a": "yes", "b": "no"}


def test_tags_that_cannot_be_are_refused(tmp_path):
    with pytest.raises(DataError, match="column 't' has no tag in any row"):
        open_source(table(tmp_path, "image,t\na.jpg,\n"), options=TableOptions(tags=("t",)))
    many = "|".join(f"tag{n}" for n in range(501))
    with pytest.raises(DataError, match="501 different tags"):
        open_source(table(tmp_path, f"image,t\na.jpg,{many}\n"), options=TableOptions(tags=("t",)))
    with pytest.raises(DataError, match="line 2, column 't': tags must be words"):
        open_source(table(tmp_path, '\n{"image": "a.jpg", "t": [1]}', "l.jsonl"), options=TableOptions(tags=("t",)))
    with pytest.raises(BadArgument, match="--tags: is for tables, folder: reads none"):
        open_source(str(class_folders(tmp_path / "photos")), options=TableOptions(tags=("t",)))


# -- several rows of one photo ---------------------------------------------------------------------------------------


def test_rows_of_one_photo_are_one_sample_with_all_their_labels(tmp_path):
    text = "image,age,sex\na.jpg,old,\nb.jpg,young,m\n./a.jpg,,f\nb.jpg,young,m\n"
    source = open_source(table(tmp_path, text))
    assert labels_of(source, "age") == {"a": "old", "b": "young"}
    assert labels_of(source, "sex") == {"a": "f", "b": "m"}
    assert "2 rows name a photo that an earlier row names, too: each photo is one sample" in said(source)


def test_rows_of_one_photo_that_contradict_each_other_are_refused_or_dropped(tmp_path):
    text = table(tmp_path, "image,age,sex\na.jpg,old,f\nb.jpg,old,m\na.jpg,young,f\nb.jpg,young,m\nc.jpg,young,f\n")
    with pytest.raises(
        DataError, match=r"line 4: task 'age' is 'young' here and 'old' in .*line 2, for one photo; so do 1 more"
    ):
        open_source(text)
    source = open_source(text, options=TableOptions(drop_conflicts=True))
    assert labels_of(source, "age") == {"a": None, "b": None, "c": "young"}
    assert labels_of(source, "sex") == {"a": "f", "b": "m", "c": "f"}
    assert "2 labels are missing, because rows of one photo contradict each other" in said(source)


def test_a_photo_is_of_one_split(tmp_path):
    with pytest.raises(DataError, match=r"line 3: this photo is of the split 'val', but of 'train' in .*line 2"):
        open_source(table(tmp_path, "image,age,split\na.jpg,1,train\na.jpg,1,val\n"))


# -- splits and groups -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["split", "Split", "subset", "partition", "set"])
def test_published_splits_by_their_usual_words(name, tmp_path):
    words = ["Train", "dev", "valid", "testing"]
    rows = "".join(f"{photo}.jpg,{word},{photo}\n" for photo, word in zip("abcd", words, strict=True))
    source = open_source(table(tmp_path, f"image,{name},n\n{rows}"))
    assert [record.split for record in source.records] == ["train", "val", "val", "test"]
    assert list(source.tasks) == ["n"]


def test_a_column_called_set_that_holds_no_splits_is_a_task(tmp_path):
    assert list(open_source(table(tmp_path, "image,set\na.jpg,red\nb.jpg,blue\n")).tasks) == ["set"]


def test_groups_by_a_column(tmp_path):
    text = table(tmp_path, "image,person,age\na.jpg,anna,1\nb.jpg,anna,2\nc.jpg,,1\nd.jpg,nan,1\n")
    source = open_source(text, options=TableOptions(group="person"))
    assert [record.group for record in source.records] == ["anna", "anna", "", ""]
    assert list(source.tasks) == ["age"]
    with pytest.raises(BadArgument, match=r"--group shop: .* has no such column \(columns: image, person, age\)"):
        open_source(text, options=TableOptions(group="shop"))


def test_groups_of_folders_by_a_pattern(tmp_path):
    photos_in(tmp_path, "cat/7-1.jpg", "cat/7-2.jpg", "dog/7-3.jpg", "dog/x.jpg")
    source = open_source(str(tmp_path), options=TableOptions(group="/([0-9]+)-"))
    assert [record.group for record in source.records] == ["7", "7", "7", ""]
    assert "is not found in 1 of 4 names; these stand alone" in said(source)
    with pytest.raises(BadArgument, match="is found in none of the 4 names, as 'cat/7-1'"):
        open_source(str(tmp_path), options=TableOptions(group="person"))
    with pytest.raises(BadArgument, match=r"--group \(: is no regular expression"):
        open_source(str(tmp_path), options=TableOptions(group="("))


def test_a_source_needs_no_kind_for_tables_and_folders(tmp_path):
    photos_in(tmp_path / "photos", "cat/1.jpg", "dog/2.jpg")
    assert open_source(str(tmp_path / "photos")).tasks == {"class": ("cat", "dog")}
    with pytest.raises(BadArgument, match=r"must be a table \(.csv, .jsonl\), a folder of class folders, or KIND:PATH"):
        open_source(str(tmp_path / "nothing"))
