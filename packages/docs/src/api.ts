/** Pages of the API: each export of a module with its signature, its docstring and its examples. Reads the sources. */
import { join } from "node:path"
import ts from "typescript6"
import { docBefore, headerOf, isExported, namesOf, parse, publicModules } from "../../../test/support/modules.ts"

/** A page of the API. */
export interface ApiPage {
  /** What a user imports. */
  readonly module: string
  readonly page: string
  readonly text: string
}

interface Export {
  readonly name: string
  readonly signature: string
  readonly doc: string
}

/** The text of a docstring without its stars. */
const plain = (doc: string): string =>
  doc
    .replace(/^\/\*\*|\*\/$/g, "")
    .split("\n")
    .map((line) => line.replace(/^\s*\* ?/, ""))
    .join("\n")
    .trim()

/** Links of docstrings as plain names. */
const withoutLinks = (text: string, quote: string): string =>
  text.replaceAll(/\{@link ([^}]*)\}/g, `${quote}$1${quote}`)

/** A docstring as Markdown: links become code, headings of its parts stay bold, and tags become sentences. */
export const markdownOf = (doc: string): string => {
  const [text = "", ...tags] = withoutLinks(plain(doc), "`").split(/^@(?=[a-z])/m)
  const valueOf = (name: string): string | undefined =>
    tags
      .find((tag) => tag.startsWith(`${name} `))
      ?.slice(name.length + 1)
      .trim()
  const since = valueOf("since")
  const defaultsTo = valueOf("default")
  const deprecated = valueOf("deprecated")
  const prose = text.trim().replaceAll("```ts doctest", "```ts")
  return [
    deprecated === undefined ? "" : `**Deprecated**: ${deprecated}`,
    prose,
    defaultsTo === undefined ? "" : `**Default**: ${defaultsTo}`,
    since === undefined ? "" : `Since ${since}.`
  ]
    .filter((part) => part !== "")
    .join("\n\n")
}

/** A declaration without what it does: the body of a function, or the value of a constant with a type. */
const signatureOf = (node: ts.Statement): string => {
  const text = (from: ts.Node, to: number): string => from.getSourceFile().text.slice(from.getStart(), to).trim()
  if (ts.isFunctionDeclaration(node)) return text(node, node.body?.getStart() ?? node.end)
  if (!ts.isVariableStatement(node)) return node.getText()
  const [declaration] = node.declarationList.declarations
  const { initializer, type } = declaration!
  if (initializer === undefined) return node.getText()
  if (type !== undefined) return text(node, type.end)
  if (ts.isArrowFunction(initializer)) return `${text(node, initializer.equalsGreaterThanToken.end)} ...`
  return initializer.getText().length < 400 ? node.getText() : `${text(node, initializer.getStart())}...`
}

const exportsOf = (file: string): ReadonlyArray<Export> => {
  const source = parse(file)
  return source.statements.flatMap((node): ReadonlyArray<Export> => {
    if (isExported(node)) {
      return namesOf(node).map((name) => ({ name, signature: signatureOf(node), doc: docBefore(source, node.pos) }))
    }
    if (!ts.isExportDeclaration(node) || node.moduleSpecifier === undefined) return []
    const clause = node.exportClause
    const specifier = (node.moduleSpecifier as ts.StringLiteral).text
    if (clause !== undefined && ts.isNamespaceExport(clause)) return []
    const from = specifier === "floodgate/internal" ? "src/internal.ts" : join(file, "..", specifier)
    const all = exportsOf(from)
    if (clause === undefined) return all
    const passed = new Set(clause.elements.map(({ name }) => name.getText()))
    return all.filter(({ name }) => passed.has(name))
  })
}

/** Overloads, and a type and a value of one name, in one entry. */
const merged = (all: ReadonlyArray<Export>): ReadonlyArray<Export> => {
  const byName = new Map<string, Export>()
  for (const entry of all) {
    const known = byName.get(entry.name)
    byName.set(
      entry.name,
      known === undefined
        ? entry
        : { ...known, doc: known.doc || entry.doc, signature: `${known.signature}\n\n${entry.signature}` }
    )
  }
  return [...byName.values()]
}

/** Comments of members are in the signature, where their units and defaults stand beside the types. */
const entryOf = ({ doc, name, signature }: Export): string =>
  [`## ${name}`, markdownOf(doc), `\`\`\`ts\n${withoutLinks(signature, "")}\n\`\`\``].join("\n\n")

const pageText = (title: string, file: string): string =>
  [`# ${title}`, markdownOf(headerOf(parse(file))), ...merged(exportsOf(file)).map(entryOf), ""].join("\n\n")

const namespacesOf = (file: string): ReadonlyArray<{ readonly name: string; readonly file: string }> =>
  parse(file).statements.flatMap((node) =>
    ts.isExportDeclaration(node) && node.exportClause !== undefined && ts.isNamespaceExport(node.exportClause)
      ? [
          {
            name: node.exportClause.name.getText(),
            file: join(file, "..", (node.moduleSpecifier as ts.StringLiteral).text)
          }
        ]
      : []
  )

const pathOf = (module: string): string => `api/${module.replace("@", "").replaceAll("/", "-")}.md`

/** The pages of all public modules. */
export const apiPages = (): ReadonlyArray<ApiPage> =>
  publicModules()
    .filter(({ name }) => name !== "floodgate")
    .flatMap(({ file, name }) => [
      ...(exportsOf(file).length === 0 ? [] : [{ module: name, page: pathOf(name), text: pageText(name, file) }]),
      ...namespacesOf(file).map((inner) => ({
        module: `${name}: ${inner.name}`,
        page: pathOf(`${name}-${inner.name}`),
        text: pageText(`${name}: ${inner.name}`, inner.file)
      }))
    ])
