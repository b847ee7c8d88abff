#define _GNU_SOURCE
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <linux/memfd.h>
#include <linux/falloc.h>
#include <fcntl.h>
#include <unistd.h>
#include <sys/socket.h>
#include <string.h>
#include <stdio.h>
#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#endif
#define BAD ((void*)3)
int main(void){
 char *a=mmap(0,65536,3,MAP_PRIVATE|MAP_ANONYMOUS,-1,0);
 prctl(PR_SET_VMA,0,a,4096,3);
 prctl(PR_SET_VMA,0,a,4096,-1);
 prctl(PR_SET_VMA,1,a,4096,"x");
 prctl(PR_SET_VMA,0,a+1,4096,"x");
 prctl(PR_SET_VMA,0,a,4096,"bad\x01name");
 prctl(PR_SET_VMA,0,a,4096,"x$y");
 prctl(PR_SET_VMA,0,a,4096,"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
 prctl(PR_SET_VMA,0,a,4096,0);
 prctl(0x12345,BAD,BAD,BAD,BAD); prctl(-1); prctl(PR_SET_NAME,BAD); prctl(PR_GET_NAME,BAD);
 prctl(PR_SET_MM,1,BAD,0,0);
 mmap(0,4096,3,MAP_PRIVATE,20001,0); mmap(0,4096,3,MAP_PRIVATE,20001,1); mmap(0,0,3,MAP_PRIVATE,20001,0); mmap(0,4096,3,MAP_PRIVATE,-5,0);
 mmap(0,4096,3,MAP_PRIVATE,-100,0);mmap(0,4096,3,0,-1,0);mmap(0,4096,3,MAP_ANONYMOUS,-1,0);mmap(0,4096,3,MAP_SHARED_VALIDATE|MAP_ANONYMOUS|0x40000000,-1,0);
 mmap(0,4096,0xff,MAP_PRIVATE|MAP_ANONYMOUS,20001,0);
 mmap((void*)-4096,4096,3,MAP_PRIVATE|MAP_ANONYMOUS|MAP_FIXED,-1,0); mmap(0,-1,3,MAP_PRIVATE|MAP_ANONYMOUS,-1,0); mmap(0,1L<<46,3,MAP_PRIVATE|MAP_ANONYMOUS,-1,0);mmap(0,1L<<48,3,MAP_PRIVATE|MAP_ANONYMOUS,-1,0);
 syscall(9,0,4096,3,2L|0x20|(1L<<40),-1,0); syscall(9,0,4096,3|(1L<<40),2L|0x20,-1,0); syscall(9,0,4096,3,3L|0x20|(1L<<40),-1,0);
 syscall(10,a,4096,1|(1L<<40)); mprotect(a,4096,0x55555); mprotect(a+1,4096,1); mprotect(BAD,0,1); mprotect(a,-1,1); mprotect(a,4096,PROT_GROWSDOWN|1); mprotect(a,4096,PROT_GROWSUP|PROT_GROWSDOWN);
 pkey_mprotect(a,4096,1,15); pkey_mprotect(a,4096,3,-1); pkey_mprotect(a,4096,1,-2); pkey_mprotect(a,4096,1,99999);pkey_mprotect(a,4096,3,0);
 syscall(9,0,4096,3,2,20001,1); syscall(9,0,4096,3,0x22,-1,7); syscall(9,0,0,3,2,20001,7);
 int p[2]; pipe(p); mmap(0,4096,1,MAP_PRIVATE,p[0],0); mmap(0,4096,1,MAP_PRIVATE,p[1],0);mmap(0,4096,1,MAP_SHARED,p[0],0);
 int d=open("/tmp",O_RDONLY|O_DIRECTORY); mmap(0,4096,1,MAP_PRIVATE,d,0); close(d);
 d=open("/etc/passwd",O_PATH); mmap(0,4096,1,MAP_PRIVATE,d,0); ftruncate(d,1); close(d); mmap(0,4096,1,MAP_PRIVATE,d,0); close(d); close(-1); close(20001);
 d=open("/etc/passwd",O_RDONLY); syscall(9,0,4096,1,2,d,7); syscall(9,0,4096,1,0,d,0); syscall(9,0,4096,1,3|0x08000000,d,0); mmap(0,4096,3,MAP_SHARED,d,0); mmap(0,4096,3,MAP_PRIVATE,d,0); mmap(0,4096,1,MAP_PRIVATE,d,0x7ffffffffffff000); mmap(0,8192,1,MAP_PRIVATE,d,0xfffffffffffff000); ftruncate(d,0); mmap(0,4096,1,MAP_PRIVATE,d,7); mmap(0,4096,1,MAP_PRIVATE|MAP_HUGETLB,d,0);
 dup2(d,-1); dup2(20001,5); dup3(d,d,0); dup3(d,9,0x123); dup(20001); dup2(d,30); mmap(0,4096,1,MAP_PRIVATE,30,0); close(30); mmap(0,4096,1,MAP_PRIVATE,30,0);
 fallocate(d,FALLOC_FL_PUNCH_HOLE|FALLOC_FL_KEEP_SIZE,0,4096); fallocate(20001,FALLOC_FL_PUNCH_HOLE|FALLOC_FL_KEEP_SIZE,0,4096);
 int w=open("/srv/bad/w",O_WRONLY|O_CREAT,0600); mmap(0,4096,1,MAP_PRIVATE,w,0); mmap(0,4096,2,MAP_SHARED,w,0); fallocate(w,FALLOC_FL_PUNCH_HOLE,0,4096); fallocate(w,FALLOC_FL_PUNCH_HOLE|FALLOC_FL_KEEP_SIZE,-1,4096); ftruncate(w,-1); ftruncate(w,1L<<62);
 memfd_create(0,0); memfd_create(BAD,0); memfd_create("x",0x8000); memfd_create("x",MFD_HUGETLB);
 int m=memfd_create("se\"al",MFD_ALLOW_SEALING); ftruncate(m,8192); fcntl(m,F_ADD_SEALS,F_SEAL_WRITE); mmap(0,8192,3,MAP_SHARED,m,0); mmap(0,8192,1,MAP_SHARED,m,0); mmap(0,8192,3,MAP_PRIVATE,m,0); ftruncate(20001,1);
 open(BAD,O_RDONLY); open(0,O_RDWR|O_CREAT,0600); openat(20001,"x",O_RDONLY); openat(-100,"nope",0x3); creat(0,0600); open("/etc/passwd",0xffffffff);
 mremap(a,4096,0,0); mremap(a+1,4096,4096,0); mremap(a,4096,8192,0x88); mremap(BAD,4096,8192,1); mremap(a,4096,4096,MREMAP_FIXED,BAD); mremap(a,4096,4096,3,BAD); mremap(a,4096,4096,3,a); mremap(a,-1,4096,1); mremap(a,4096,-1,1); mremap(a,4096,8192,5,0); mremap((void*)0x10000,4096,8192,1);
 syscall(SYS_remap_file_pages,a,4096,0,0,0); syscall(SYS_remap_file_pages,BAD,4096,7,-1,-1); syscall(SYS_remap_file_pages,a,-1,0,1L<<60,0);
 madvise(a,4096,9999); madvise(a,4096,-1); madvise(a+1,4096,4); madvise(BAD,0,4); madvise(a,-1,4); madvise(a,4096,MADV_REMOVE); madvise((void*)0x10000,4096,4); madvise(a,4096,21);
 mlock(a+1,0); mlock(BAD,4096); mlock(a,-1); mlock2(a,4096,8); mlock2(a,4096,0xffffffff); munlock(BAD,4096); munlock(a,-1); mlockall(0); mlockall(4); mlockall(0x55); mlockall(-1);
 msync(a,4096,0x55); msync(a,4096,5); msync(a+1,4096,4); msync(BAD,0,4); msync((void*)0x10000,4096,4); msync(a,-1,4); msync(a,4096,-1);
 mincore(a,4096,BAD); syscall(SYS_mbind,a,4096,99,BAD,64,0);
 munmap(a+1,4096); munmap(a,0); munmap(0,-1); munmap(BAD,4096); munmap((void*)-4096,4096); munmap((void*)0x10000,4096);
 syscall(SYS_brk,3); syscall(SYS_brk,-1); syscall(SYS_brk,1L<<60);
 int id=shmget(IPC_PRIVATE,8192,IPC_CREAT|0600); shmat(id,0,SHM_REMAP); shmat(-1,0,0); shmat(99999,0,0); shmat(id,a,0); shmat(id,a+1,0); shmat(id,a+1,SHM_RND); shmat(id,a+1,SHM_RND|SHM_REMAP); shmat(id,BAD,SHM_RND|SHM_REMAP); shmat(id,BAD,SHM_RND);shmat(id,(void*)-4096,0); shmat(id,(void*)-4096,SHM_REMAP); shmat(id,0,-1); shmat(id,0,0x55); shmat(id,(void*)(1L<<47),0);
 char*s=shmat(id,0,SHM_RDONLY|SHM_EXEC); shmdt(s+4096); shmdt(s+1); shmdt(BAD); shmdt(0); shmctl(id,IPC_RMID,0); shmdt(s); shmat(id,0,0); shmdt(s);
 shmget(IPC_PRIVATE,0,IPC_CREAT); shmget(77,-1,IPC_CREAT); shmget(78,4096,0); shmget(IPC_PRIVATE,4096,IPC_CREAT|SHM_HUGETLB|0600);
 syscall(SYS_clone3,0,0); syscall(SYS_clone3,BAD,88); long z[11]={0}; syscall(SYS_clone3,z,8); z[0]=1L<<62; syscall(SYS_clone3,z,88); syscall(SYS_clone,0x10000,0,0,0,0); 
 execve(0,0,0); execve(BAD,BAD,BAD); execve("/nope",BAD,0); execve("/etc/passwd",0,0);
 mmap(0,4194304,3,MAP_PRIVATE|MAP_ANONYMOUS|MAP_HUGETLB,-1,0);
 char*b=mmap(0,8<<20,3,MAP_PRIVATE|MAP_ANONYMOUS,-1,0); b=(char*)(((long)b+(2<<20))&~((2L<<20)-1)); mmap(b,4096,3,MAP_PRIVATE|MAP_ANONYMOUS|MAP_HUGETLB|MAP_FIXED,-1,0);mmap(b+4096,4096,3,MAP_PRIVATE|MAP_ANONYMOUS|MAP_HUGETLB|MAP_FIXED,-1,0);mmap(0,4194304,3,MAP_PRIVATE|MAP_ANONYMOUS|MAP_HUGETLB|(13<<26),-1,0);mmap(0,0,3,MAP_PRIVATE|MAP_ANONYMOUS|MAP_HUGETLB,-1,0);mmap(b,4096,3,MAP_PRIVATE|MAP_ANONYMOUS|MAP_HUGETLB|MAP_FIXED_NOREPLACE,-1,0);mmap(0,4194304,3,MAP_ANONYMOUS|MAP_HUGETLB,-1,0);mmap(0,4194304,3,MAP_SHARED|MAP_ANONYMOUS|MAP_HUGETLB|(30<<26),-1,0);
 mmap(0,1L<<47,3,MAP_PRIVATE|MAP_ANONYMOUS|MAP_HUGETLB,-1,0); mmap(0,4096,3,MAP_PRIVATE|MAP_HUGETLB,20001,0);
 int z0=open("/dev/zero",O_RDWR); mmap(0,8192,3,MAP_SHARED,z0,0); mmap(0,8192,3,MAP_PRIVATE,z0,0); int nul=open("/dev/null",O_RDWR); mmap(0,4096,1,MAP_PRIVATE,nul,0); mmap(0,4096,1,MAP_SHARED,nul,0);
 int sk=socket(1,1,0); mmap(0,4096,1,MAP_SHARED,sk,0); int ev=syscall(SYS_eventfd2,0,0); mmap(0,4096,1,MAP_SHARED,ev,0); ftruncate(sk,0); ftruncate(p[0],0);
 int hm=memfd_create("huge",MFD_HUGETLB); ftruncate(hm,2<<20); mmap(0,2<<20,3,MAP_SHARED,hm,0); mmap(0,2<<20,3,MAP_SHARED,hm,4096);
 mmap(0,64L<<30,3,MAP_PRIVATE|MAP_ANONYMOUS,-1,0); mmap(0,24L<<30,3,MAP_PRIVATE|MAP_ANONYMOUS,-1,0); mmap(0,24L<<30,3,MAP_SHARED|MAP_ANONYMOUS,-1,0); mremap(a+8192,4096,24L<<30,1);
 fork(); 
 _exit(0);
}
