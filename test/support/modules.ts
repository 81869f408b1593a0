/**
 * Reads the structure of the packages from their source files, for the tests of the architecture, the docstrings and the
 * public names.
 */
import { readdirSync, readFileSync } from "node:fs"
import { dirname, join, relative } from "node:path"
import ts from "typescript6"

export const root = join(import.meta.dirname, "../..")

const inRoot = (path: string): string => relative(root, path).replaceAll("\\", "/")

/** Every TypeScript file of a folder, as `src/...`. */
export const filesOf = (folder: string): Array<string> =>
  readdirSync(join(root, folder), { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith(".ts") && !entry.parentPath.includes("node_modules"))
    .map((entry) => inRoot(join(entry.parentPath, entry.name)))
    .sort()

export const sourceFiles = (): Array<string> => filesOf("src")

/** The packages beside the library. */
export const packages = ["gateway", "redis", "lab", "cli"]

export const packageFiles = (): Array<string> => packages.flatMap((name) => filesOf(`packages/${name}/src`))

const parsed = new Map<string, ts.SourceFile>()

/** Parses a file, once for all tests unless it changes. */
export const parse = (file: string): ts.SourceFile => {
  const text = readFileSync(join(root, file), "utf8")
  const known = parsed.get(file)
  if (known?.text === text) return known
  const source = ts.createSourceFile(file, text, ts.ScriptTarget.Latest, true)
  parsed.set(file, source)
  return source
}

/** The docstring before a declaration that begins at this position, or "". */
export const docBefore = (source: ts.SourceFile, position: number): string => {
  const last = (ts.getLeadingCommentRanges(source.text, position) ?? []).at(-1)
  const text = last === undefined ? "" : source.text.slice(last.pos, last.end)
  return text.startsWith("/**") ? text : ""
}

/** The docstring of a file. */
export const headerOf = (source: ts.SourceFile): string =>
  /^(?:#!.*\n)?\s*(\/\*\*[\s\S]*?\*\/)/.exec(source.text)?.[1] ?? ""

/** A function in the source: where it begins, its lines of code, and how many functions it contains directly. */
export interface Written {
  readonly at: string
  readonly lines: number
  readonly closures: number
}

/** The lines of a file that hold more than comments. */
export const codeLines = (file: string): ReadonlySet<number> => {
  const source = parse(file)
  const lines = new Set<number>()
  const visit = (node: ts.Node): void => {
    if (ts.isToken(node) && node.kind !== ts.SyntaxKind.EndOfFileToken) {
      for (const position of [node.getStart(), node.end]) lines.add(source.getLineAndCharacterOfPosition(position).line)
    }
    node.getChildren().forEach(visit)
  }
  visit(source)
  return lines
}

/** The functions of a file. Empty lines and comments are not lines of code. */
export const functionsOf = (file: string): Array<Written> => {
  const source = parse(file)
  const lineOf = (position: number): number => source.getLineAndCharacterOfPosition(position).line
  const code = codeLines(file)
  const found: Array<Written> = []
  /** Visits a node; returns the number of functions that it is or contains directly. */
  const visit = (node: ts.Node): number => {
    const makes = node.getChildren().reduce((sum, child) => sum + visit(child), 0)
    if (!ts.isFunctionLike(node) || !("body" in node) || node.body === undefined) return makes
    const [first, last] = [lineOf(node.getStart()), lineOf(node.end)]
    let lines = 0
    for (let line = first; line <= last; line++) if (code.has(line)) lines++
    found.push({ at: `${file}:${first + 1}`, lines, closures: makes })
    return 1
  }
  visit(source)
  return found
}

export const isExported = (node: ts.Statement): boolean =>
  ts.canHaveModifiers(node) && (ts.getModifiers(node) ?? []).some(({ kind }) => kind === ts.SyntaxKind.ExportKeyword)

/** The names that a statement declares. */
export const namesOf = (node: ts.Statement): Array<string> => {
  if (ts.isVariableStatement(node)) return node.declarationList.declarations.map(({ name }) => name.getText())
  const { name } = node as ts.Statement & { readonly name?: ts.Identifier }
  return name === undefined ? [] : [name.text]
}

/** The text of a docstring without its stars. */
export const textOfDoc = (doc: string): string =>
  doc
    .replace(/^\/\*\*|\*\/$/g, "")
    .split("\n")
    .map((line) => line.replace(/^\s*\* ?/, ""))
    .join("\n")
    .trim()

/** An export of a file. */
export interface Exported {
  readonly name: string
  /** Where it is declared, or `export * as Name from "./file.ts"`. */
  readonly node: ts.Statement
  readonly doc: string
  /** Whether it is there when a program runs: not only a type. */
  readonly isValue: boolean
  /** The file of a namespace; undefined for everything else. */
  readonly namespace: string | undefined
}

/** The exports of a file, re-exports included, in source order. Overloads have an entry each. */
export const exportsOf = (file: string): ReadonlyArray<Exported> => {
  const source = parse(file)
  return source.statements.flatMap((node): ReadonlyArray<Exported> => {
    const doc = docBefore(source, node.pos)
    if (isExported(node)) {
      const isValue = !ts.isInterfaceDeclaration(node) && !ts.isTypeAliasDeclaration(node)
      return namesOf(node).map((name) => ({ name, node, doc, isValue, namespace: undefined }))
    }
    if (!ts.isExportDeclaration(node) || node.moduleSpecifier === undefined) return []
    const clause = node.exportClause
    const specifier = (node.moduleSpecifier as ts.StringLiteral).text
    // What a package passes on of another is documented there.
    if (!specifier.startsWith(".") && specifier !== "floodgate/internal") return []
    const from = specifier === "floodgate/internal" ? "src/internal.ts" : inRoot(join(root, file, "..", specifier))
    if (clause !== undefined && ts.isNamespaceExport(clause)) {
      return [{ name: clause.name.getText(), node, doc, isValue: !node.isTypeOnly, namespace: from }]
    }
    const all = exportsOf(from)
    if (clause === undefined) return all
    const isType = new Map(clause.elements.map((one) => [one.name.getText(), node.isTypeOnly || one.isTypeOnly]))
    return all.flatMap((one) => {
      const typeOnly = isType.get(one.name)
      return typeOnly === undefined ? [] : [{ ...one, isValue: one.isValue && !typeOnly }]
    })
  })
}

/** Subpaths that are not part of the API: those that only our other packages may use, and those that report a move. */
const isUnlisted = (key: string): boolean => /^\.\/(internal(\/.*)?|gateway|redis)$/.test(key)

interface PublicModule {
  /** What a user imports. */
  readonly name: string
  readonly file: string
}

/** The modules that a user can import, of the library and of the packages that programs use. */
export const publicModules = (): ReadonlyArray<PublicModule> =>
  [".", "packages/gateway", "packages/redis", "packages/lab"]
    .flatMap(modulesOf)
    .sort((a, b) => (a.name.replace("@", "") < b.name.replace("@", "") ? -1 : 1))

const modulesOf = (folder: string): ReadonlyArray<PublicModule> => {
  const manifest = JSON.parse(readFileSync(join(root, folder, "package.json"), "utf8")) as {
    readonly name: string
    readonly exports: Record<string, string | null | Record<string, string>>
  }
  const modules: Array<PublicModule> = []
  const add = (key: string, file: string): void => {
    modules.push({ name: `${manifest.name}${key.slice(1)}`, file: join(folder, file) })
  }
  for (const [key, target] of Object.entries(manifest.exports)) {
    if (target === null || typeof target === "string" || isUnlisted(key)) continue
    const file = target["@floodgate/source"]!.slice(2)
    if (!file.includes("*")) {
      add(key, file)
      continue
    }
    // One level is enough: modules are directly in src/.
    for (const entry of readdirSync(join(root, folder, dirname(file)), { withFileTypes: true })) {
      const module = key.replace("*", entry.name.slice(0, -3))
      if (!entry.isFile() || !entry.name.endsWith(".ts") || manifest.exports[module] === null) continue
      if (module in manifest.exports) continue
      add(module, `${dirname(file)}/${entry.name}`)
    }
  }
  return modules
}

export interface Import {
  readonly from: string
  readonly typeOnly: boolean
  readonly line: number
}

const imported = new WeakMap<ts.SourceFile, ReadonlyArray<Import>>()

/** Imports and re-exports of a file. A relative one comes back as `src/...`, any other as written. */
export const importsOf = (file: string): ReadonlyArray<Import> => {
  const source = parse(file)
  const known = imported.get(source)
  if (known !== undefined) return known
  const imports: Array<Import> = []
  imported.set(source, imports)
  const add = (specifier: ts.Expression | undefined, typeOnly: boolean): void => {
    if (specifier === undefined || !ts.isStringLiteral(specifier)) return
    const from = specifier.text.startsWith(".") ? inRoot(join(root, dirname(file), specifier.text)) : specifier.text
    imports.push({ from, typeOnly, line: source.getLineAndCharacterOfPosition(specifier.getStart()).line + 1 })
  }
  const visit = (node: ts.Node): void => {
    if (ts.isImportDeclaration(node)) {
      add(node.moduleSpecifier, node.importClause?.phaseModifier === ts.SyntaxKind.TypeKeyword)
    } else if (ts.isExportDeclaration(node)) {
      add(node.moduleSpecifier, node.isTypeOnly)
    } else if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) {
      add(node.arguments[0], false)
    } else if (ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument)) {
      add(node.argument.literal, true)
    }
    ts.forEachChild(node, visit)
  }
  visit(source)
  return imports
}

/** The library's internals for our other packages. */
const internals: Readonly<Record<string, string>> = {
  "floodgate/internal": "src/internal.ts",
  "floodgate/internal/nearest": "src/domain/input/nearest.ts",
  "floodgate/internal/words": "src/domain/words.ts"
}

/** The file that an import names: a relative one, or an internal one of the library or of the gateway for our other packages. */
const fileOf = (file: string, specifier: string): string | undefined => {
  if (specifier.startsWith(".")) return inRoot(join(root, dirname(file), specifier))
  if (Object.hasOwn(internals, specifier)) return internals[specifier]
  const [, name] = /^@floodgate\/gateway\/internal\/(\w+)$/.exec(specifier) ?? []
  return name && `packages/gateway/src/${name === "command" ? "command/gateway" : `terminal/${name}`}.ts`
}

/** The namespaces that a file exports, and their files. */
const namespacesOf = (file: string): ReadonlyMap<string, string> =>
  new Map(
    exportsOf(file).flatMap(({ name, namespace }) => (namespace === undefined ? [] : [[name, namespace] as const]))
  )

/** The names that a file imports or re-exports from other files, as `src/file.ts name`; `*` is everything. */
export const takenBy = (file: string): Array<string> => {
  const source = parse(file)
  const later = source.text.matchAll(/\(await import\("([.@][^"]+)"\)\)\.(\w+)/g)
  const takenLater = [...later].map(([, from = "", name]) => `${fileOf(file, from)} ${name}`)
  const whole = source.text.matchAll(/\(\) =>\s+(?:Promise\.all\(\[)?((?:import\("\.[^"]+"\)(?:, )?)+)/g)
  const takenWhole = [...whole].flatMap(([, imports = ""]) =>
    [...imports.matchAll(/"([^"]+)"/g)].map(([, from = ""]) => `${fileOf(file, from)} *`)
  )
  const takenAtOnce = source.statements.flatMap((node) => {
    if (!ts.isImportDeclaration(node) && !ts.isExportDeclaration(node)) return []
    const specifier = node.moduleSpecifier as ts.StringLiteral | undefined
    const from = specifier && fileOf(file, specifier.text)
    if (from === undefined) return []
    const named = ts.isImportDeclaration(node) ? node.importClause?.namedBindings : node.exportClause
    // What the packages take of a namespace counts, and not that it is there for them.
    if (named !== undefined && ts.isNamespaceExport(named) && file === internals["floodgate/internal"]) return []
    if (named === undefined || ts.isNamespaceExport(named)) return [`${from} *`]
    const membersOf = (name: string, of: string) =>
      [...source.text.matchAll(new RegExp(`\\b${name}\\.(\\w+)`, "g"))].map(([, member]) => `${of} ${member}`)
    if (ts.isNamespaceImport(named)) return membersOf(named.name.text, from)
    return named.elements.flatMap(({ name, propertyName }) => {
      const taken = (propertyName ?? name).text
      const namespace = from === internals["floodgate/internal"] ? namespacesOf(from).get(taken) : undefined
      return namespace === undefined ? [`${from} ${taken}`] : membersOf(name.text, namespace)
    })
  })
  return [...takenLater, ...takenWhole, ...takenAtOnce]
}

/** Files that import each other in a circle, each circle once, types included. */
export const circles = (files: ReadonlyArray<string>): Array<string> => {
  const state = new Map<string, "open" | "done">()
  const found: Array<string> = []
  const visit = (file: string, path: ReadonlyArray<string>): void => {
    if (state.get(file) === "done") return
    if (state.get(file) === "open") {
      found.push([...path.slice(path.indexOf(file)), file].join(" -> "))
      return
    }
    state.set(file, "open")
    for (const { from } of importsOf(file)) if (/^(src|packages)\//.test(from)) visit(from, [...path, file])
    state.set(file, "done")
  }
  for (const file of files) visit(file, [])
  return found
}

const isType = (node: ts.Statement): boolean =>
  ts.isInterfaceDeclaration(node) || ts.isTypeAliasDeclaration(node) || ts.isClassDeclaration(node)

/** Names of types that several files declare, in alphabetical order, with these files. */
export const namesOfSeveralTypes = (
  files: ReadonlyArray<string>
): ReadonlyArray<readonly [name: string, files: ReadonlyArray<string>]> => {
  const uses = Map.groupBy(
    files.flatMap((file) =>
      parse(file)
        .statements.filter(isType)
        .flatMap((node) => namesOf(node).map((name) => ({ file, name })))
    ),
    ({ name }) => name
  )
  return [...uses]
    .map(([name, places]) => [name, [...new Set(places.map(({ file }) => file))]] as const)
    .filter(([, { length }]) => length > 1)
    .sort(([one], [other]) => (one < other ? -1 : 1))
}
