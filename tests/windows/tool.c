// A host binary of a test's extension for Windows: does what its first argument says.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <windows.h>
#include <fcntl.h>
#include <io.h>

// Starts this program again, with an argument.
static DWORD again(const char *argument) {
	char path[MAX_PATH], command[2 * MAX_PATH];
	GetModuleFileNameA(NULL, path, sizeof path);
	snprintf(command, sizeof command, "\"%s\" %s", path, argument);
	STARTUPINFOA startup = {.cb = sizeof startup};
	PROCESS_INFORMATION made;
	// Inherits the output, as a careless program's children do.
	if (!CreateProcessA(path, command, NULL, NULL, TRUE, 0, NULL, NULL, &startup, &made)) return 0;
	return made.dwProcessId;
}

int main(int count, char **arguments) {
	const char *what = count > 1 ? arguments[1] : "";
	_setmode(_fileno(stdin), _O_BINARY);
	_setmode(_fileno(stdout), _O_BINARY);
	if (!strcmp(what, "args")) {
		for (int i = 2; i < count; i++) printf("[%s]\n", arguments[i]);
	} else if (!strcmp(what, "cat")) {
		char bytes[65536];
		size_t length;
		while ((length = fread(bytes, 1, sizeof bytes, stdin)) > 0) fwrite(bytes, 1, length, stdout);
		fprintf(stderr, "end of input\n");
	} else if (!strcmp(what, "exit")) {
		return (int)strtoul(arguments[2], NULL, 0);
	} else if (!strcmp(what, "env")) {
		printf("%s %s\n", getenv("LONGSHORE_EXTENSION"), getenv("SECRET") ? "leaks" : "clean");
	} else if (!strcmp(what, "tree")) {
		// Children that have children: none of them ends by itself.
		for (int i = 0; i < 3; i++) again("branch");
		printf("grown\n");
		fflush(stdout);
		Sleep(600000);
	} else if (!strcmp(what, "branch")) {
		again("leaf");
		Sleep(600000);
	} else if (!strcmp(what, "leaf")) {
		Sleep(600000);
	} else if (!strcmp(what, "leave")) {
		again("leaf");
		return 7;
	}
	return 0;
}
