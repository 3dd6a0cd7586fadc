// Looks at a named pipe as a stranger would: `pipe NAME look|hold`. `pipe stay` only lives.
#include <stdio.h>
#include <string.h>
#include <windows.h>
#include <aclapi.h>
#include <sddl.h>

int main(int count, char **arguments) {
	if (count == 2) {
		printf("there\n");
		fflush(stdout);
		Sleep(INFINITE);
	}
	if (count < 3) return 2;
	const char *name = arguments[1], *what = arguments[2];
	HANDLE pipe = CreateFileA(name, GENERIC_READ | GENERIC_WRITE, 0, NULL, OPEN_EXISTING, 0, NULL);
	if (pipe == INVALID_HANDLE_VALUE) return printf("closed %lu\n", GetLastError()), 1;
	if (!strcmp(what, "hold")) {
		// A client that says nothing, for as long as it lives.
		printf("held\n");
		fflush(stdout);
		Sleep(600000);
	}
	PSECURITY_DESCRIPTOR descriptor;
	LPSTR text;
	DWORD failed = GetSecurityInfo(pipe, SE_KERNEL_OBJECT, OWNER_SECURITY_INFORMATION | DACL_SECURITY_INFORMATION, NULL, NULL, NULL, NULL, &descriptor);
	if (failed || !ConvertSecurityDescriptorToStringSecurityDescriptorA(descriptor, SDDL_REVISION_1, OWNER_SECURITY_INFORMATION | DACL_SECURITY_INFORMATION, &text, NULL)) return printf("unknown %lu\n", failed), 1;
	printf("%s\n", text);
	return 0;
}
