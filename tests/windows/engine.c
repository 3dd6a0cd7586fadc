// Stands for an engine on a named pipe: `engine NAME PORT` carries what comes there to a port of this machine, and back.
#include <stdio.h>
#include <stdlib.h>
#include <winsock2.h>
#include <windows.h>

struct link {
	HANDLE pipe;
	SOCKET socket;
};

// Waits for what was begun on a pipe: how many bytes it moved.
static DWORD finish(HANDLE pipe, OVERLAPPED *begun, BOOL started) {
	DWORD moved = 0;
	if (!started && GetLastError() == ERROR_IO_PENDING) started = TRUE;
	if (!started || !GetOverlappedResult(pipe, begun, &moved, TRUE)) moved = 0;
	CloseHandle(begun->hEvent);
	return moved;
}

static OVERLAPPED begin(void) {
	OVERLAPPED begun = {0};
	begun.hEvent = CreateEvent(NULL, TRUE, FALSE, NULL);
	return begun;
}

static DWORD WINAPI there(void *argument) {
	struct link *link = argument;
	char bytes[65536];
	for (;;) {
		OVERLAPPED begun = begin();
		DWORD count = finish(link->pipe, &begun, ReadFile(link->pipe, bytes, sizeof bytes, NULL, &begun));
		if (!count) break;
		for (DWORD sent = 0; sent < count;) {
			int more = send(link->socket, bytes + sent, count - sent, 0);
			if (more <= 0) return 0;
			sent += more;
		}
	}
	shutdown(link->socket, SD_SEND);
	return 0;
}

static DWORD WINAPI back(void *argument) {
	struct link *link = argument;
	HANDLE reader = CreateThread(NULL, 0, there, link, 0, NULL);
	char bytes[65536];
	for (;;) {
		int count = recv(link->socket, bytes, sizeof bytes, 0);
		if (count <= 0) break;
		OVERLAPPED begun = begin();
		if (!finish(link->pipe, &begun, WriteFile(link->pipe, bytes, count, NULL, &begun))) break;
	}
	FlushFileBuffers(link->pipe);
	DisconnectNamedPipe(link->pipe);
	WaitForSingleObject(reader, INFINITE);
	CloseHandle(reader);
	CloseHandle(link->pipe);
	closesocket(link->socket);
	free(link);
	return 0;
}

int main(int count, char **arguments) {
	if (count != 3) return 2;
	WSADATA data;
	WSAStartup(MAKEWORD(2, 2), &data);
	for (BOOL is_first = TRUE;; is_first = FALSE) {
		struct link *link = malloc(sizeof *link);
		link->pipe = CreateNamedPipeA(arguments[1], PIPE_ACCESS_DUPLEX | FILE_FLAG_OVERLAPPED, PIPE_TYPE_BYTE | PIPE_WAIT, PIPE_UNLIMITED_INSTANCES, 65536, 65536, 0, NULL);
		if (link->pipe == INVALID_HANDLE_VALUE) return 1;
		if (is_first) {
			printf("there\n");
			fflush(stdout);
		}
		OVERLAPPED begun = begin();
		BOOL connected = ConnectNamedPipe(link->pipe, &begun);
		if (!connected && GetLastError() == ERROR_PIPE_CONNECTED) CloseHandle(begun.hEvent);
		else finish(link->pipe, &begun, connected);
		link->socket = socket(AF_INET, SOCK_STREAM, 0);
		struct sockaddr_in to = {0};
		to.sin_family = AF_INET;
		to.sin_port = htons(atoi(arguments[2]));
		to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		if (connect(link->socket, (struct sockaddr *)&to, sizeof to)) return 1;
		CloseHandle(CreateThread(NULL, 0, back, link, 0, NULL));
	}
}
